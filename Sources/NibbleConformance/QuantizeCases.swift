extension OperationCases {
    public static let quantization: [OperationCase] = []
}
