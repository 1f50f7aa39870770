import NibbleCore

/// The object that a `torch.save` file holds, with the place of every storage.
struct TorchContent {
    /// The mapped file, or what a compressed archive unpacks to.
    let file: MappedFile
    private let object: PickleValue
    private let heap: PickleHeap

    /// One folder of any name with `data.pkl`, `data/KEY` for each storage, and perhaps `byteorder`.
    init(zip archiveFile: MappedFile) throws {
        let (file, places) = try ZipArchive(archiveFile).content()
        guard let (folder, pickle) = Self.findPickle(places) else {
            throw file.malformed(expected: "an archive with one …/data.pkl", found: "none, or several")
        }
        if let order = places["\(folder)/byteorder"], !file.bytes[order].elementsEqual("little".utf8) {
            throw CheckpointError.refused(file: file.path, what: "its elements are not little-endian")
        }
        var machine = PickleMachine(file, range: pickle) { key in
            guard let place = places["\(folder)/data/\(key)"] else {
                throw file.malformed(expected: "archive entry \(folder)/data/\(key)", found: "none")
            }
            return place
        }
        object = try machine.run()
        heap = machine.heap
        self.file = file
    }

    private static func findPickle(_ places: [ByteText: Range<Int>]) -> (folder: String, pickle: Range<Int>)? {
        let found = places.filter { name, _ in
            name.text.utf8.count { $0 == UInt8(ascii: "/") } == 1 && name.text.hasByteSuffix("/data.pkl")
        }
        guard found.count == 1, let (name, pickle) = found.first else { return nil }
        return (String(name.text.dropLast("/data.pkl".count)), pickle)
    }

    /// The number that marks the form without a zip archive, as its pickle ends.
    private static let legacyMagic: [UInt8] = [0x8A, 0x0A, 0x6C, 0xFC, 0x9C, 0x46, 0xF9, 0x20, 0x6A, 0xA8, 0x50, 0x19, 0x2E]

    /// Where the pickle of that number ends; `nil` for a file of another form. Protocol 4 puts the number into a frame.
    static func legacyStart(_ file: MappedFile) -> Int? {
        let bytes = file.bytes
        guard bytes.count >= 2, bytes[0] == 0x80, (2...5).contains(bytes[1]) else { return nil }
        return [2, 2 + 9].lazy.filter { $0 == 2 || bytes.count > 2 && bytes[2] == 0x95 }
            .first { $0 <= bytes.count && bytes[$0...].starts(with: legacyMagic) }
            .map { $0 + legacyMagic.count }
    }

    /// After the magic number: pickles of the protocol version, of facts about the machine, of the object and of the list
    /// of storage keys; then for each key its element count (i64) and elements.
    /// - Parameter start: from ``legacyStart(_:)``.
    init(legacy file: MappedFile, start: Int) throws {
        var position = start
        var heap = PickleHeap()
        func next() throws -> PickleValue {
            var machine = PickleMachine(file, range: position..<file.byteCount, heap: heap, payload: nil)
            let value = try machine.run()
            (position, heap) = (machine.position, machine.heap)
            return value
        }
        guard case .int(1001) = try next() else { throw file.malformed(expected: "torch.save protocol 1001", found: "another") }
        try Self.checkMachine(next(), heap, file)
        let object = try next()
        guard case .list(let keys) = try next() else {
            throw file.malformed(expected: "a list of storage keys", found: "another value")
        }
        var cursor = ByteCursor(file, position..<file.byteCount)
        try Self.placeStorages(keys, &heap, &cursor)
        self.file = file
        self.object = object
        self.heap = heap
    }

    private static func checkMachine(_ facts: PickleValue, _ heap: PickleHeap, _ file: MappedFile) throws {
        guard case .dict(let number) = facts else {
            throw file.malformed(expected: "a dict of machine facts", found: "another value")
        }
        let items = heap.dicts[number]
        for index in stride(from: 0, to: items.count, by: 2) {
            guard case .text(let key) = items[index], file.bytes[key].elementsEqual("little_endian".utf8) else { continue }
            guard case .bool(true) = items[index + 1] else {
                throw CheckpointError.refused(file: file.path, what: "its elements are not little-endian")
            }
        }
    }

    private static func placeStorages(_ keys: Int, _ heap: inout PickleHeap, _ cursor: inout ByteCursor) throws {
        let file = cursor.file
        var unplaced = heap.storageByKey
        for key in heap.sequences[keys] {
            guard case .text(let range) = key, range.count <= 256,
                let storage = try unplaced.removeValue(forKey: ByteText(file.text(range)))
            else {
                throw file.malformed(expected: "the key of a storage", found: "an unknown or repeated one")
            }
            let byteCount = heap.storages[storage].byteCount
            let width = heap.storages[storage].element.byteCount
            let elements = try cursor.integer(Int64.self)
            guard elements == byteCount / width else {
                throw file.malformed(expected: "\(byteCount / width) elements in a storage", found: "\(elements)")
            }
            heap.storages[storage].fileOffset = try cursor.skip(byteCount).lowerBound
        }
        if let (key, _) = unplaced.first { throw file.malformed(expected: "elements of storage \(key)", found: "none") }
        for index in heap.storages.indices {
            guard let parent = heap.storages[index].parent else { continue }
            heap.storages[index].fileOffset = heap.storages[parent.storage].fileOffset + parent.byteOffset
        }
    }
}

// MARK: - The state dict

extension TorchContent {
    struct StateDict {
        /// In the dict's order. Values that are not tensors are left out.
        var tensors: [(name: String, view: StridedView)] = []
        var unreadable: [(name: String, error: CheckpointError)] = []

        var isEmpty: Bool { tensors.isEmpty && unreadable.isEmpty }
    }

    /// Training programs save the weights beside an optimizer, in a dict under one of these keys.
    private static let wrappers: Set<ByteText> = ["model", "state_dict", "model_state_dict", "module"]

    /// The outermost dict, or the one dict of weights inside it.
    func stateDict() throws -> StateDict {
        guard case .dict(let number) = object else {
            throw file.malformed(expected: "a dict from names to tensors", found: "another object")
        }
        let outermost = try stateDict(of: number)
        guard outermost.isEmpty else { return outermost }
        let members = try dictMembers(of: number)
        let wrapped = try members.filter { Self.wrappers.contains(ByteText($0.name)) }.compactMap { member in
            let content = try stateDict(of: member.dict)
            return content.isEmpty ? nil : (name: member.name, content: content)
        }
        if wrapped.count == 1 { return wrapped[0].content }
        let names = (wrapped.isEmpty ? members.map(\.name) : wrapped.map(\.name)).prefix(8)
        guard let first = names.first else {
            throw file.malformed(expected: "a dict from names to tensors", found: "a dict without tensors")
        }
        throw CheckpointError.refused(
            file: file.path,
            what: "its tensors are not in the outermost dict, which holds "
                + names.map { "\"\($0.printable())\"" }.joined(separator: ", ")
                + ": save the dict of the weights alone, as in torch.save(checkpoint[\"\(first.printable())\"], file)")
    }

    private func dictMembers(of number: Int) throws -> [(name: String, dict: Int)] {
        let items = heap.dicts[number]
        return try stride(from: 0, to: items.count, by: 2).compactMap { index in
            guard case .text(let key) = items[index], case .dict(let dict) = items[index + 1] else { return nil }
            return try (file.text(key), dict)
        }
    }

    private func stateDict(of number: Int) throws -> StateDict {
        let items = heap.dicts[number]
        var result = StateDict()
        // A pickle may set one remembered key over and over: its text is made only once.
        var positions: [Range<Int>: Int] = [:]
        for index in stride(from: 0, to: items.count, by: 2) {
            guard case .text(let range) = items[index] else { continue }
            switch items[index + 1] {
            case .tensor(let number):
                let view = view(heap.tensors[number])
                if let position = positions[range] {
                    result.tensors[position].view = view
                } else {
                    positions[range] = result.tensors.count
                    try result.tensors.append((file.text(range), view))
                }
            case .unreadable(let number):
                let name = try file.text(range)
                result.unreadable.append((name, error(heap.unreadable[number], name)))
            default: continue
            }
        }
        return result
    }

    private func view(_ tensor: TorchTensor) -> StridedView {
        let offset = heap.storages[tensor.storage].fileOffset + tensor.offset * tensor.dtype.byteCount
        return StridedView(dtype: tensor.dtype, shape: tensor.sizes, strides: tensor.strides, byteOffset: offset)
    }

    private func error(_ reason: UnreadableTensor, _ name: String) -> CheckpointError {
        switch reason {
        case .kind(let kind): .unknownDType(file: file.path, tensor: name, found: kind)
        case .rank(let shape): .unsupportedRank(file: file.path, tensor: name, shape: shape)
        }
    }
}
