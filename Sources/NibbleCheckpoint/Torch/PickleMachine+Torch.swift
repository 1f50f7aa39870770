import NibbleCore

/// Storages and tensors: what the accepted globals and persistent ids stand for.
extension PickleMachine {
    /// `OrderedDict()`, `torch.Size((…))`, and the functions that rebuild tensors.
    mutating func reduce() throws {
        guard case .tuple(let number) = try pop() else { throw malformed("a tuple of arguments", "another value") }
        guard case .global(let function) = try pop() else { throw refused("a call of what is no global") }
        try push(call(function, heap.sequences[number]))
    }

    mutating func newObject() throws {
        guard case .tuple(let number) = try pop() else { throw malformed("a tuple of arguments", "another value") }
        let type = try pop()
        guard case .global(let global) = type, global == .orderedDict || global == .size else {
            throw refused("an object of another type")
        }
        try push(call(global, heap.sequences[number]))
    }

    private mutating func call(_ function: TorchGlobal, _ arguments: [PickleValue]) throws -> PickleValue {
        switch function {
        case .orderedDict:
            guard arguments.isEmpty else { throw refused("an ordered dict made from arguments") }
            return .dict(heap.dict())
        case .size:
            guard arguments.count == 1, case .tuple = arguments[0] else {
                throw malformed("a tuple of extents", "other arguments")
            }
            return arguments[0]
        case .rebuildParameter:
            guard let first = arguments.first, case .tensor = first else {
                throw malformed("a tensor as parameter", "other arguments")
            }
            return first
        case .rebuildTensor:
            return try tensor(arguments, counts: 4...4, dtype: nil)
        case .rebuildTensorV2:
            return try tensor(arguments, counts: 6...7, dtype: nil)
        case .rebuildTensorV3:
            guard arguments.count > 6, case .global(.dtype(let dtype)) = arguments[6] else {
                throw malformed("a dtype for a tensor", "other arguments")
            }
            return try tensor(arguments, counts: 7...8, dtype: dtype)
        case .storage, .untypedStorage, .dtype:
            throw refused("a call of a type")
        }
    }

    /// (storage, offset in elements, sizes, strides in elements, …)
    private mutating func tensor(_ arguments: [PickleValue], counts: ClosedRange<Int>, dtype given: DType?) throws -> PickleValue
    {
        guard counts.contains(arguments.count), case .storage(let storage) = arguments[0], case .int(let offset) = arguments[1],
            case .tuple(let sizes) = arguments[2], case .tuple(let strides) = arguments[3]
        else { throw malformed("storage, offset, sizes and strides of a tensor", "other arguments") }
        guard let dtype = given ?? heap.storages[storage].dtype else { throw malformed("a dtype for a tensor", "raw bytes") }
        let tensor = try TorchTensor(
            storage: storage, dtype: dtype, offset: offset, sizes: extents(sizes), strides: extents(strides))
        try check(tensor)
        heap.tensors.append(tensor)
        return .tensor(heap.tensors.count - 1)
    }

    private func extents(_ tuple: Int) throws -> TorchTensor.Extents {
        let values = heap.sequences[tuple]
        guard values.count <= Shape.maximumRank else { return .tooMany(tuple: tuple) }
        let numbers = try values.map { value in
            guard case .int(let number) = value, number >= 0 else {
                throw malformed("whole numbers as sizes and strides", "another value")
            }
            return number
        }
        return .known(Shape(numbers))
    }

    /// Every element must lie inside the storage. Tensors of too high a rank are reported where their name is known.
    private func check(_ tensor: TorchTensor) throws {
        guard case .known(let sizes) = tensor.sizes, case .known(let strides) = tensor.strides else {
            if case .known(let sizes) = tensor.sizes { throw malformed("\(sizes.rank) strides", "more") }
            return
        }
        guard sizes.rank == strides.rank else { throw malformed("\(sizes.rank) strides", "\(strides.rank)") }
        guard Shape(validating: sizes.dimensions) != nil else { throw malformed("a shape that memory can hold", "\(sizes)") }
        let available = heap.storages[tensor.storage].byteCount / tensor.dtype.byteCount
        guard tensor.offset >= 0 else { throw malformed("an offset into a storage", "\(tensor.offset)") }
        var end = tensor.offset
        var overflow = false
        if sizes.count > 0 {
            for axis in 0..<sizes.rank {
                let (span, tooLong) = (sizes[axis] - 1).multipliedReportingOverflow(by: strides[axis])
                let (sum, tooFar) = end.addingReportingOverflow(span)
                (end, overflow) = (sum, overflow || tooLong || tooFar)
            }
        }
        guard !overflow, sizes.count > 0 ? end < available : end <= available else {
            throw malformed(
                "a view inside a storage of \(available) elements",
                "sizes \(sizes), strides \(strides) at offset \(tensor.offset)")
        }
    }

    /// `("storage", type, key, location, element count)`, with a sixth item in files without a zip archive: `None` or
    /// `(view key, offset, size)` for a part of that storage.
    mutating func persistentObject(_ id: PickleValue) throws -> PickleValue {
        let count = payload == nil ? 6 : 5
        guard case .tuple(let number) = id else { throw refused("a persistent id that is no tuple") }
        let items = heap.sequences[number]
        guard let first = items.first, case .text(let word) = first, file.bytes[word].elementsEqual("storage".utf8) else {
            throw refused("a persistent id other than a storage")
        }
        guard items.count == count, case .global(let type) = items[1], case .text(let keyRange) = items[2],
            case .int(let elements) = items[4]
        else { throw malformed("a storage id of \(count) items", "other items") }
        let storage = try storage(type, key: key(keyRange), elements: elements)
        guard payload == nil else { return .storage(storage) }
        switch items[5] {
        case .none: return .storage(storage)
        case .tuple(let view): return try .storage(part(of: storage, heap.sequences[view]))
        default: throw malformed("a storage view", "another value")
        }
    }

    private func key(_ range: Range<Int>) throws -> String {
        guard range.count <= 256 else { throw malformed("a storage key", "\(range.count) bytes") }
        return try file.text(range)
    }

    private mutating func storage(_ type: TorchGlobal, key: String, elements: Int) throws -> Int {
        let dtype: DType?
        switch type {
        case .storage(let element): dtype = element
        case .untypedStorage: dtype = nil
        default: throw refused("a storage of another type")
        }
        let (byteCount, overflow) = elements.multipliedReportingOverflow(by: dtype?.byteCount ?? 1)
        guard elements >= 0, !overflow else { throw malformed("a storage size", "\(elements) elements") }
        if let known = heap.storageByKey[key] {
            guard heap.storages[known].byteCount == byteCount, heap.storages[known].dtype == dtype else {
                throw malformed("storage \(key) with one type and size", "another")
            }
            return known
        }
        var storage = TorchStorage(dtype: dtype, byteCount: byteCount)
        if let place = try payload?(key) {
            guard place.count == byteCount else { throw malformed("\(byteCount) bytes in storage \(key)", "\(place.count)") }
            storage.fileOffset = place.lowerBound
        }
        heap.storageByKey[key] = heap.storages.count
        return add(storage)
    }

    /// (view key, offset in elements, size in elements)
    private mutating func part(of storage: Int, _ view: [PickleValue]) throws -> Int {
        let whole = heap.storages[storage]
        let width = whole.dtype?.byteCount ?? 1
        guard view.count == 3, case .int(let offset) = view[1], case .int(let size) = view[2], offset >= 0, size >= 0,
            offset <= whole.byteCount / width, size <= whole.byteCount / width - offset
        else { throw malformed("a storage view inside \(whole.byteCount) bytes", "another") }
        return add(TorchStorage(dtype: whole.dtype, byteCount: size * width, parent: (storage, offset * width)))
    }

    private mutating func add(_ storage: TorchStorage) -> Int {
        heap.storages.append(storage)
        return heap.storages.count - 1
    }
}
