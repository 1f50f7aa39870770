import NibbleCore

/// Reads one pickle (protocols 2 to 5) of the kind that `torch.save` writes for a state dict.
///
/// The sets of opcodes and globals are fixed; any other is refused by name. Nothing is imported or called. Memory is
/// bounded by the length of the pickle, which itself is bounded; there is no recursion.
struct PickleMachine {
    /// A state dict of a hundred thousand tensors takes about 12 MB.
    static let maximumByteCount = 1 << 26
    static let maximumStackDepth = 1 << 18
    static let maximumObjectCount = 1 << 21

    let file: MappedFile
    var heap: PickleHeap
    /// Finds the payload of a storage by its key; `nil` in files that list storages only after the pickle.
    let payload: ((_ key: ByteText) throws -> Range<Int>)?

    private var cursor: ByteCursor
    private var stack: [PickleValue] = []
    /// Heights of the stack at open marks.
    private var marks: [Int] = []
    private var memo: [PickleValue?] = []

    init(_ file: MappedFile, range: Range<Int>, heap: PickleHeap = PickleHeap(), payload: ((ByteText) throws -> Range<Int>)?) {
        self.file = file
        self.heap = heap
        self.payload = payload
        let end = min(range.upperBound, range.lowerBound + Self.maximumByteCount)
        cursor = ByteCursor(file, range.lowerBound..<end)
    }

    /// After ``run()``, where the next pickle begins.
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
    /// The opcodes that a state dict needs. Others, such as those of protocols 0 and 1, are refused.
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
        case addItems = 0x90
        case frozenSet = 0x91
        case binInt = 0x4A
        case binInt1 = 0x4B
        case binInt2 = 0x4D
        case long1 = 0x8A
        case long4 = 0x8B
        case binFloat = 0x47
        case binUnicode = 0x58
        case shortBinUnicode = 0x8C
        case binUnicode8 = 0x8D
        case binString = 0x54
        case shortBinString = 0x55
        case binBytes = 0x42
        case shortBinBytes = 0x43
        case binBytes8 = 0x8E
        case byteArray8 = 0x96
        case newObjectWithKeywords = 0x92
        case stackGlobal = 0x93
        case memoize = 0x94
        case frame = 0x95
        case pop = 0x30
        case popMark = 0x31
        case duplicate = 0x32
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
        if opcode == .stop { return false }
        if try !stepObject(opcode), try !stepContainer(opcode) { try stepScalar(opcode) }
        return true
    }

    /// Globals, objects, the memo and the stack itself.
    /// - Returns: whether the opcode is one of these.
    private mutating func stepObject(_ opcode: Opcode) throws -> Bool {
        switch opcode {
        case .proto: try readProtocol()
        case .frame: _ = try cursor.skip(8)
        case .global: try pushGlobal(module: cursor.line(limit: 256), name: cursor.line(limit: 256))
        case .stackGlobal: try pushStackGlobal()
        case .reduce: try reduce()
        case .newObject: try newObject()
        case .newObjectWithKeywords: try newObject(hasKeywords: true)
        case .build: try build()
        case .persistentID: try stack.append(persistentObject(pop()))
        case .binPut: try remember(Int(cursor.integer(UInt8.self)))
        case .longBinPut: try remember(Int(cursor.integer(UInt32.self)))
        case .memoize: try remember(memo.count)
        case .binGet: try recall(Int(cursor.integer(UInt8.self)))
        case .longBinGet: try recall(Int(cursor.integer(UInt32.self)))
        case .mark: marks.append(stack.count)
        case .pop: _ = try pop()
        case .popMark: _ = try popMark()
        case .duplicate: try stack.append(top())
        default: return false
        }
        return true
    }

    /// - Returns: whether the opcode is that of a container.
    private mutating func stepContainer(_ opcode: Opcode) throws -> Bool {
        switch opcode {
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
        case .emptySet: stack.append(.opaque)
        case .addItems: try addItems()
        case .frozenSet:
            _ = try popMark()
            stack.append(.opaque)
        default: return false
        }
        return true
    }

    private mutating func stepScalar(_ opcode: Opcode) throws {
        switch opcode {
        case .newTrue: stack.append(.bool(true))
        case .newFalse: stack.append(.bool(false))
        case .binInt: try stack.append(.int(Int(cursor.integer(Int32.self))))
        case .binInt1: try stack.append(.int(Int(cursor.integer(UInt8.self))))
        case .binInt2: try stack.append(.int(Int(cursor.integer(UInt16.self))))
        case .long1: try pushLong(byteCount: Int(cursor.integer(UInt8.self)))
        case .long4: try pushLong(byteCount: Int(cursor.integer(UInt32.self)))
        case .binFloat: try pushIgnored(byteCount: 8)
        case .binUnicode, .binString: try pushText(byteCount: Int(cursor.integer(UInt32.self)))
        case .shortBinUnicode, .shortBinString: try pushText(byteCount: Int(cursor.integer(UInt8.self)))
        case .binUnicode8: try pushText(byteCount: Int(clamping: cursor.integer(UInt64.self)))
        case .shortBinBytes: try pushIgnored(byteCount: Int(cursor.integer(UInt8.self)))
        case .binBytes: try pushIgnored(byteCount: Int(cursor.integer(UInt32.self)))
        case .binBytes8, .byteArray8: try pushIgnored(byteCount: Int(clamping: cursor.integer(UInt64.self)))
        default: stack.append(.none)
        }
    }

    private mutating func readProtocol() throws {
        let version = try cursor.integer(UInt8.self)
        guard (2...5).contains(version) else { throw refused("pickle protocol \(version) (2 to 5 are read)") }
    }

    private mutating func pushStackGlobal() throws {
        guard case .text(let name) = try pop(), case .text(let module) = try pop(), name.count <= 256, module.count <= 256
        else { throw malformed("the module and the name of a global", "other values") }
        try pushGlobal(module: file.text(module), name: file.text(name))
    }

    private mutating func pushGlobal(module: String, name: String) throws {
        guard let global = TorchGlobal(module: module, name: name) else { throw refused("the global \(module).\(name)") }
        stack.append(.global(global))
    }

    /// A pickle never names a slot beyond the number of objects before it, so gaps cannot exceed what was read.
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

    private mutating func pushText(byteCount: Int) throws { try stack.append(.text(cursor.skip(byteCount))) }

    private mutating func pushIgnored(byteCount: Int) throws {
        _ = try cursor.skip(byteCount)
        stack.append(.opaque)
    }

    /// Two's complement, little-endian, of any length.
    private mutating func pushLong(byteCount: Int) throws {
        let bytes = try cursor.bytes(byteCount)
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
        guard case .list(let list) = try top() else { throw refused("appending to a value that is not a list") }
        heap.sequences[list].append(contentsOf: elements)
    }

    private mutating func setItems(_ pairs: [PickleValue]) throws {
        guard case .dict(let dict) = try top() else { throw refused("setting items of a value that is not a dict") }
        guard pairs.count % 2 == 0 else { throw malformed("keys and values in pairs", "\(pairs.count) values") }
        heap.dicts[dict].append(contentsOf: pairs)
    }

    private mutating func addItems() throws {
        _ = try popMark()
        guard case .opaque = try top() else { throw refused("adding items to a value that is not a set") }
    }

    /// Attributes of an ordered dict (`_metadata`) or of a tensor. No weight depends on them.
    private mutating func build() throws {
        _ = try pop()
        switch try top() {
        case .dict, .tensor, .unreadable, .opaque: return
        default: throw refused("a state for a value that has none")
        }
    }
}
