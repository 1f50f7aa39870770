import NibbleCore

/// The object a `torch.save` file holds, with every storage found.
struct TorchContent {
    private let object: PickleValue
    private let heap: PickleHeap

    /// One folder of any name with `data.pkl`, `data/KEY` for each storage, and perhaps `byteorder`.
    init(zip file: MappedFile) throws {
        let archive = try ZipArchive(file)
        guard let (folder, pickle) = Self.findPickle(archive) else {
            throw file.malformed(expected: "an archive with one …/data.pkl", found: "none, or several")
        }
        if let order = archive.entries["\(folder)/byteorder"], !file.bytes[order].elementsEqual("little".utf8) {
            throw CheckpointError.refused(file: file.path, what: "its elements are not little-endian")
        }
        var machine = PickleMachine(file, range: pickle) { key in
            guard let place = archive.entries["\(folder)/data/\(key)"] else {
                throw file.malformed(expected: "archive entry \(folder)/data/\(key)", found: "none")
            }
            return place
        }
        object = try machine.run()
        heap = machine.heap
    }

    private static func findPickle(_ archive: ZipArchive) -> (folder: String, pickle: Range<Int>)? {
        let found = archive.entries.filter { name, _ in
            name.utf8.count { $0 == UInt8(ascii: "/") } == 1 && name.hasSuffix("/data.pkl")
        }
        guard found.count == 1, let (name, pickle) = found.first else { return nil }
        return (String(name.dropLast("/data.pkl".count)), pickle)
    }

    /// A pickle of the number that marks the form without a zip archive.
    private static let legacyMagic: [UInt8] = [
        0x80, 0x02, 0x8A, 0x0A, 0x6C, 0xFC, 0x9C, 0x46, 0xF9, 0x20, 0x6A, 0xA8, 0x50, 0x19, 0x2E,
    ]

    static func isLegacy(_ file: MappedFile) -> Bool { file.bytes.starts(with: legacyMagic) }

    /// After the magic number: pickles of the protocol version, of facts about the machine, of the object and of the list
    /// of storage keys; then for each key its element count (i64) and elements.
    init(legacy file: MappedFile) throws {
        var position = Self.legacyMagic.count
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
                let storage = try unplaced.removeValue(forKey: file.text(range))
            else {
                throw file.malformed(expected: "the key of a storage", found: "an unknown or repeated one")
            }
            let byteCount = heap.storages[storage].byteCount
            let width = heap.storages[storage].dtype?.byteCount ?? 1
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

    /// Name and place of every tensor, in the dict's order. Other values are passed over.
    func stateDict(_ file: MappedFile) throws -> [(String, StridedView)] {
        guard case .dict(let number) = object else {
            throw file.malformed(expected: "a dict from names to tensors", found: "another object")
        }
        let items = heap.dicts[number]
        var tensors: [(String, StridedView)] = []
        // A pickle may set one remembered key over and over: text is made only once for it.
        var positions: [Range<Int>: Int] = [:]
        for index in stride(from: 0, to: items.count, by: 2) {
            guard case .text(let range) = items[index] else { continue }
            if case .tensor(let tensor) = items[index + 1] {
                if let position = positions[range] {
                    tensors[position].1 = try view(heap.tensors[tensor], named: tensors[position].0, file)
                    continue
                }
                positions[range] = tensors.count
                let name = try file.text(range)
                try tensors.append((name, view(heap.tensors[tensor], named: name, file)))
            } else if case .dict = items[index + 1], file.bytes[range].elementsEqual("state_dict".utf8) {
                throw CheckpointError.refused(
                    file: file.path, what: "its tensors are inside \"state_dict\" (a training checkpoint); save that dict alone")
            }
        }
        guard !tensors.isEmpty else {
            throw file.malformed(expected: "a dict from names to tensors", found: "a dict without tensors")
        }
        return tensors
    }

    private func view(_ tensor: TorchTensor, named name: String, _ file: MappedFile) throws -> StridedView {
        switch (tensor.sizes, tensor.strides) {
        case (.known(let sizes), .known(let strides)):
            let offset = heap.storages[tensor.storage].fileOffset + tensor.offset * tensor.dtype.byteCount
            return StridedView(dtype: tensor.dtype, shape: sizes, strides: strides, byteOffset: offset)
        case (.tooMany(let tuple), _), (_, .tooMany(let tuple)):
            let extents = heap.sequences[tuple].prefix(64).map { value in
                if case .int(let extent) = value { extent } else { -1 }
            }
            throw CheckpointError.unsupportedRank(file: file.path, tensor: name, shape: Array(extents))
        }
    }
}
