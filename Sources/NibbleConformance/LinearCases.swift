extension OperationCases {
    public static let linear: [OperationCase] = []
}
