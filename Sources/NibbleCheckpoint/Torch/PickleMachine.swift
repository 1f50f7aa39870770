import NibbleCore

/// Reads one pickle (protocol 2) of the kind `torch.save` writes for a state dict, and nothing else.
///
/// There is a fixed set of opcodes and a fixed table of globals; any other is refused by name. Nothing is imported or
/// called. Memory is bounded by the length of the pickle, which itself is bounded; there is no recursion.
struct PickleMachine {
    /// A state dict of a hundred thousand tensors takes about 12 MB.
    static let maximumByteCount = 1 << 26
    static let maximumStackDepth = 1 << 18
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
        while try step() {
            guard stack.count <= Self.maximumStackDepth, marks.count <= Self.maximumStackDepth else {
                throw malformed("a stack of at most \(Self.maximumStackDepth) values", "more")
            }
            guard heap.objectCount <= Self.maximumObjectCount else {
                throw malformed("at most \(Self.maximumObjectCount) containers and tensors", "more")
            }
        }
        let result = try pop()
        guard stack.isEmpty, marks.isEmpty else { throw malformed("one object at the end of the pickle", "more") }
        return result
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
    /// The opcodes of a state dict. Protocol 2 knows some others, later protocols more: none is accepted.
    private enum Opcode: UInt8 {
        case proto = 0x80
        case stop = 0x2E
        case global = 0x63
        case reduce = 0x52
        case newObject = 0x81
        case build = 0x62
        case persistentID = 0x51
        case binPut = 0x71
        case longBinPut = 0x72
        case binGet = 0x68
        case longBinGet = 0x6A
        case mark = 0x28
        case emptyTuple = 0x29
        case tuple = 0x74
        case tuple1 = 0x85
        case tuple2 = 0x86
        case tuple3 = 0x87
        case emptyList = 0x5D
        case append = 0x61
        case appends = 0x65
        case emptyDict = 0x7D
        case setItem = 0x73
        case setItems = 0x75
        case none = 0x4E
        case newTrue = 0x88
        case newFalse = 0x89
        case emptySet = 0x8F
        case binInt = 0x4A
        case binInt1 = 0x4B
        case binInt2 = 0x4D
        case long1 = 0x8A
        case binFloat = 0x47
        case binUnicode = 0x58
        case shortBinString = 0x55
    }

    /// - Returns: whether the pickle goes on.
    private mutating func step() throws -> Bool {
        let place = cursor.position
        let code = try cursor.integer(UInt8.self)
        guard let opcode = Opcode(rawValue: code) else {
            throw CheckpointError.refused(
                file: file.path,
                what: "pickle opcode 0x\(String(code, radix: 16)) at offset \(place) does not belong in a state dict")
        }
        switch opcode {
        case .stop: return false
        case .proto: try readProtocol()
        case .global: try pushGlobal()
        case .reduce: try reduce()
        case .newObject: try newObject()
        case .build: try build()
        case .persistentID: try stack.append(persistentObject(pop()))
        case .binPut: try remember(Int(cursor.integer(UInt8.self)))
        case .longBinPut: try remember(Int(cursor.integer(UInt32.self)))
        case .binGet: try recall(Int(cursor.integer(UInt8.self)))
        case .longBinGet: try recall(Int(cursor.integer(UInt32.self)))
        case .mark: marks.append(stack.count)
        case .emptyTuple: stack.append(.tuple(heap.sequence([])))
        case .tuple: try stack.append(.tuple(heap.sequence(popMark())))
        case .tuple1: try pushTuple(1)
        case .tuple2: try pushTuple(2)
        case .tuple3: try pushTuple(3)
        case .emptyList: stack.append(.list(heap.sequence([])))
        case .append: try append([pop()])
        case .appends: try append(popMark())
        case .emptyDict: stack.append(.dict(heap.dict()))
        case .setItem: try setItems(popPair())
        case .setItems: try setItems(popMark())
        case .none: stack.append(.none)
        case .newTrue: stack.append(.bool(true))
        case .newFalse: stack.append(.bool(false))
        case .emptySet: stack.append(.opaque)
        case .binInt: try stack.append(.int(Int(cursor.integer(Int32.self))))
        case .binInt1: try stack.append(.int(Int(cursor.integer(UInt8.self))))
        case .binInt2: try stack.append(.int(Int(cursor.integer(UInt16.self))))
        case .long1: try pushLong()
        case .binFloat: try pushFloat()
        case .binUnicode: try stack.append(.text(cursor.skip(Int(cursor.integer(UInt32.self)))))
        case .shortBinString: try stack.append(.text(cursor.skip(Int(cursor.integer(UInt8.self)))))
        }
        return true
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

    private mutating func pushFloat() throws {
        _ = try cursor.skip(8)
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
