internal import NibbleCore

/// The JSON form of a value.
struct ValueForm<Value>: Sendable {
    let expected: String
    let read: @Sendable (JSONValue) -> Value?
}

extension ValueForm where Value == Int {
    static let integer = ValueForm(expected: "a whole number") { $0.int }
}

extension ValueForm where Value == UInt64 {
    static let seed = ValueForm(expected: "a whole number from 0") { $0.int.flatMap { UInt64(exactly: $0) } }
}

extension ValueForm where Value == Double {
    static let number = ValueForm(expected: "a number") { $0.double }
}

extension ValueForm where Value == Bool {
    static let boolean = ValueForm(expected: "true or false") { $0.bool }
}

extension ValueForm where Value == [String] {
    static let strings = ValueForm(expected: "a string or a list of strings") { json in
        if let text = json.string { return [text] }
        return json.array?.all { $0.string }
    }
}

extension ValueForm where Value == Int32 {
    static let token = ValueForm(expected: "a token id", read: tokenID)
}

extension ValueForm where Value == [Int32] {
    static let tokens = ValueForm(expected: "a token id or a list of token ids") { json in
        if let id = tokenID(json) { return [id] }
        return json.array?.all(tokenID)
    }
}

extension ValueForm where Value == [[Int32]] {
    static let tokenLists = ValueForm(expected: "a list of lists of token ids") { json in
        json.array?.all { $0.array?.all(tokenID) }
    }
}

extension ValueForm where Value == EarlyStopping {
    static let earlyStopping = ValueForm(expected: "true, false or \"never\"") { json in
        if let flag = json.bool { return flag ? .whenAllBeamsAreDone : .heuristic }
        return json.string == "never" ? .never : nil
    }
}

extension ValueForm where Value == [SequenceBias] {
    static let sequenceBias = ValueForm(expected: "a list of [[token ids], bias]") { json in
        json.array?.all { entry in
            guard let pair = entry.array, pair.count == 2, let tokens = pair[0].array?.all(tokenID),
                let bias = pair[1].double
            else { return nil }
            return SequenceBias(tokens: tokens, bias: bias)
        }
    }
}

extension ValueForm where Value == ExponentialDecay {
    static let exponentialDecay = ValueForm(expected: "[start, factor]") { json in
        guard let pair = json.array, pair.count == 2, let start = pair[0].int, let factor = pair[1].double else { return nil }
        return ExponentialDecay(start: start, factor: factor)
    }
}

extension ValueForm where Value == OpaqueOption {
    static let opaque = ValueForm(expected: "any value") { OpaqueOption(text: $0.encoded()) }
}

extension ValueForm where Value: RawRepresentable & CaseIterable & SendableMetatype, Value.RawValue == String {
    static func word() -> ValueForm {
        let words = Value.allCases.map { "\"\($0.rawValue)\"" }.joined(separator: ", ")
        return ValueForm(expected: "one of \(words)") { $0.string.flatMap { Value(rawValue: $0) } }
    }
}

@Sendable private func tokenID(_ json: JSONValue) -> Int32? { json.int.flatMap { Int32(exactly: $0) } }

extension Array {
    /// The transformed elements, or `nil` if one of them has no transform.
    fileprivate func all<Result>(_ transform: (Element) -> Result?) -> [Result]? {
        var results: [Result] = []
        results.reserveCapacity(count)
        for element in self {
            guard let result = transform(element) else { return nil }
            results.append(result)
        }
        return results
    }
}
