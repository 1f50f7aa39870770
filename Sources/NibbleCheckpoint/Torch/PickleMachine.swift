import NibbleCore

/// Reads one pickle (protocol 2) of the kind `torch.save` writes for a state dict, and nothing else.
///
/// There is a fixed set of opcodes and a fixed table of globals; any other is refused by name. Nothing is imported or
/// called. Memory is bounded by the length of the pickle, which itself is bounded; there is no recursion.
struct PickleMachine {
    /// A state dict of a hundred thousand tensors takes about 12 MB.
    static let maximumByteCount = 1 << 26
    static let maximumStackDepth = 1 << 20
    static let maximumObjectCount = 1 << 21

    let file: MappedFile
    var heap: PickleHeap
    /// Finds the payload of a storage by its key; `nil` in files that list storages only after the pickle.
    let payload: ((_ key: String) throws -> Range<Int>)?

    private var cursor: ByteCursor
    private var stack: [PickleValue] = []
    /// Heights of the stack at open marks.
    private var marks: [Int] = []
    private var memo: [PickleValue?] = []

    init(_ file: MappedFile, range: Range<Int>, heap: PickleHeap = PickleHeap(), payload: ((String) throws -> Range<Int>)?) {
        self.file = file
        self.heap = heap
        self.payload = payload
        let end = min(range.upperBound, range.lowerBound + Self.maximumByteCount)
        cursor = ByteCursor(file, range.lowerBound..<end)
    }

    /// Where the next pickle begins, after ``run()``.
    var position: Int { cursor.position }

    /// The object the pickle describes.
    mutating func run() throws -> PickleValue {
        while true {
            let place = cursor.position
            let code = try cursor.integer(UInt8.self)
            if code == UInt8(ascii: ".") {
                let result = try pop()
                guard stack.isEmpty, marks.isEmpty else { throw malformed("one object at the end of the pickle", "more") }
                return result
            }
            try execute(code, at: place)
            guard stack.count <= Self.maximumStackDepth, marks.count <= Self.maximumStackDepth else {
                throw malformed("a stack of at most \(Self.maximumStackDepth) values", "more")
            }
            guard heap.objectCount <= Self.maximumObjectCount else {
                throw malformed("at most \(Self.maximumObjectCount) containers and tensors", "more")
            }
        }
    }

    func malformed(_ expected: String, _ found: String) -> CheckpointError {
        file.malformed(expected: expected, found: "\(found) (pickle, offset \(cursor.position))")
    }

    func refused(_ what: String) -> CheckpointError {
        .refused(file: file.path, what: "\(what) does not belong in a state dict (pickle, offset \(cursor.position))")
    }
}

// MARK: - Opcodes

extension PickleMachine {
    private mutating func execute(_ code: UInt8, at place: Int) throws {
        switch Character(UnicodeScalar(code)) {
        case "\u{80}": try readProtocol()
        case "c": try pushGlobal()
        case "q": try remember(Int(cursor.integer(UInt8.self)))
        case "r": try remember(Int(cursor.integer(UInt32.self)))
        case "h": try recall(Int(cursor.integer(UInt8.self)))
        case "j": try recall(Int(cursor.integer(UInt32.self)))
        case "(": marks.append(stack.count)
        case ")": stack.append(.tuple(heap.sequence([])))
        case "t": try stack.append(.tuple(heap.sequence(popMark())))
        case "\u{85}": try pushTuple(1)
        case "\u{86}": try pushTuple(2)
        case "\u{87}": try pushTuple(3)
        case "]": stack.append(.list(heap.sequence([])))
        case "a": try append([pop()])
        case "e": try append(popMark())
        case "}": stack.append(.dict(heap.dict()))
        case "s": try setItems(popPair())
        case "u": try setItems(popMark())
        case "\u{8F}", "G": try pushOpaque(code)
        case "N": stack.append(.none)
        case "\u{88}": stack.append(.bool(true))
        case "\u{89}": stack.append(.bool(false))
        case "J": try stack.append(.int(Int(cursor.integer(Int32.self))))
        case "K": try stack.append(.int(Int(cursor.integer(UInt8.self))))
        case "M": try stack.append(.int(Int(cursor.integer(UInt16.self))))
        case "\u{8A}": try pushLong()
        case "X": try stack.append(.text(cursor.skip(Int(cursor.integer(UInt32.self)))))
        case "U": try stack.append(.text(cursor.skip(Int(cursor.integer(UInt8.self)))))
        case "Q": try stack.append(persistentObject(pop()))
        case "R": try reduce()
        case "\u{81}": try newObject()
        case "b": try build()
        default:
            throw CheckpointError.refused(
                file: file.path, what: "pickle opcode 0x\(String(code, radix: 16)) at offset \(place) does not belong in a state dict")
        }
    }

    private mutating func readProtocol() throws {
        let version = try cursor.integer(UInt8.self)
        guard version == 2 else { throw refused("pickle protocol \(version) (2 is read)") }
    }

    private mutating func pushGlobal() throws {
        let module = try cursor.line(limit: 256)
        let name = try cursor.line(limit: 256)
        guard let global = TorchGlobal(module: module, name: name) else { throw refused("the global \(module).\(name)") }
        stack.append(.global(global))
    }

    /// A pickle never names a slot beyond the number of objects before it, so that gaps cannot exceed what was read.
    private mutating func remember(_ slot: Int) throws {
        guard let value = stack.last, stack.count > marks.last ?? 0 else { throw malformed("a value to remember", "none") }
        guard slot < Self.maximumByteCount, slot <= cursor.position else { throw malformed("a smaller memo slot", "\(slot)") }
        while memo.count <= slot { memo.append(nil) }
        memo[slot] = value
    }

    private mutating func recall(_ slot: Int) throws {
        guard slot < memo.count, let value = memo[slot] else { throw malformed("a value in memo slot \(slot)", "none") }
        stack.append(value)
    }

    private mutating func pushTuple(_ count: Int) throws {
        var elements: [PickleValue] = []
        for _ in 0..<count { try elements.append(pop()) }
        stack.append(.tuple(heap.sequence(elements.reversed())))
    }

    private mutating func pushOpaque(_ code: UInt8) throws {
        if code == UInt8(ascii: "G") { _ = try cursor.skip(8) }
        stack.append(.opaque)
    }

    /// Two's complement, little-endian, of any length.
    private mutating func pushLong() throws {
        let bytes = try cursor.bytes(Int(cursor.integer(UInt8.self)))
        guard bytes.count <= 8 else { return stack.append(.opaque) }
        let isNegative = bytes.last.map { $0 & 0x80 != 0 } ?? false
        var value: UInt64 = isNegative ? .max : 0
        for byte in bytes.reversed() { value = value << 8 | UInt64(byte) }
        stack.append(.int(Int(Int64(bitPattern: value))))
    }
}

// MARK: - Stack

extension PickleMachine {
    mutating func pop() throws -> PickleValue {
        guard stack.count > marks.last ?? 0, let value = stack.popLast() else { throw malformed("a value on the stack", "none") }
        return value
    }

    mutating func push(_ value: PickleValue) { stack.append(value) }

    /// Two values in the order they were pushed.
    private mutating func popPair() throws -> [PickleValue] {
        let second = try pop()
        return try [pop(), second]
    }

    /// Everything above the last mark, which goes too.
    private mutating func popMark() throws -> [PickleValue] {
        guard let height = marks.popLast() else { throw malformed("a mark on the stack", "none") }
        defer { stack.removeSubrange(height...) }
        return Array(stack[height...])
    }

    private func top() throws -> PickleValue {
        guard stack.count > marks.last ?? 0, let value = stack.last else { throw malformed("a value on the stack", "none") }
        return value
    }

    private mutating func append(_ elements: [PickleValue]) throws {
        guard case .list(let list) = try top() else { throw refused("appending to what is no list") }
        heap.sequences[list].append(contentsOf: elements)
    }

    private mutating func setItems(_ pairs: [PickleValue]) throws {
        guard case .dict(let dict) = try top() else { throw refused("setting items of what is no dict") }
        guard pairs.count % 2 == 0 else { throw malformed("keys and values in pairs", "\(pairs.count) values") }
        heap.dicts[dict].append(contentsOf: pairs)
    }

    /// Attributes of the ordered dict (`_metadata`): not needed.
    private mutating func build() throws {
        guard case .dict = try pop(), case .dict = try top() else { throw refused("a state for what is no ordered dict") }
    }
}
