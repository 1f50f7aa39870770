import NibbleCore

/// Storages and tensors: what the accepted globals and persistent ids stand for.
extension PickleMachine {
    mutating func reduce() throws {
        guard case .tuple(let number) = try pop() else { throw malformed("a tuple of arguments", "another value") }
        guard case .global(let function) = try pop() else { throw refused("a call of something that is not a global") }
        try push(call(function, heap.sequences[number]))
    }

    /// `cls.__new__(cls, *arguments)`
    mutating func newObject(hasKeywords: Bool = false) throws {
        if hasKeywords {
            guard case .dict = try pop() else { throw malformed("a dict of keyword arguments", "another value") }
        }
        guard case .tuple(let number) = try pop() else { throw malformed("a tuple of arguments", "another value") }
        guard case .global(let global) = try pop() else { throw refused("an object of a type that is not a global") }
        switch global {
        case .orderedDict, .counter, .size, .ignored, .tensorClass: try push(call(global, heap.sequences[number]))
        default: throw refused("an object of another type")
        }
    }

    private mutating func call(_ function: TorchGlobal, _ arguments: [PickleValue]) throws -> PickleValue {
        switch function {
        case .orderedDict, .counter:
            let items = try items(arguments)
            heap.copiedCount += items.count
            return .dict(heap.dict(items))
        case .size:
            guard arguments.count == 1, case .tuple = arguments[0] else {
                throw malformed("a tuple of extents", "other arguments")
            }
            return arguments[0]
        case .rebuildParameter:
            guard let first = arguments.first else { throw malformed("a tensor as parameter", "no arguments") }
            return try parameter(first)
        case .tensorClass:
            return try arguments.first.map(parameter) ?? unreadable(.kind("a tensor without elements"))
        case .rebuildTensor:
            return try tensor(arguments, counts: 4...4, element: nil)
        case .rebuildTensorV2:
            return try tensor(arguments, counts: 6...7, element: nil)
        case .rebuildTensorV3:
            guard arguments.count > 6, case .global(.dtype(let element)) = arguments[6] else {
                throw malformed("a dtype for a tensor", "other arguments")
            }
            return try tensor(arguments, counts: 7...8, element: element)
        case .rebuildFromType:
            return try rebuildFromType(arguments)
        case .unreadableTensor(let kind):
            return unreadable(.kind(kind))
        case .ignored:
            return .opaque
        case .storage, .dtype:
            throw refused("a call of a type")
        }
    }

    /// What an ordered dict or a counter is made from: nothing, a dict, or a list of pairs.
    private func items(_ arguments: [PickleValue]) throws -> [PickleValue] {
        switch arguments.first {
        case nil: return []
        case .dict(let number)?: return heap.dicts[number]
        case .list(let number)?, .tuple(let number)?:
            return try heap.sequences[number].flatMap { pair -> [PickleValue] in
                switch pair {
                case .list(let number), .tuple(let number):
                    guard heap.sequences[number].count == 2 else { throw malformed("a key and a value", "another pair") }
                    return heap.sequences[number]
                default: throw malformed("a key and a value", "another value")
                }
            }
        default: throw malformed("the items of a dict", "another value")
        }
    }

    private func parameter(_ value: PickleValue) throws -> PickleValue {
        switch value {
        case .tensor, .unreadable: return value
        default: throw malformed("a tensor as parameter", "another value")
        }
    }

    /// (rebuild function, class, its arguments, attributes)
    private mutating func rebuildFromType(_ arguments: [PickleValue]) throws -> PickleValue {
        guard arguments.count == 4, case .global(let function) = arguments[0], case .global(.tensorClass) = arguments[1],
            case .tuple(let number) = arguments[2]
        else { throw malformed("a rebuild function, a tensor class and its arguments", "other arguments") }
        switch function {
        case .rebuildTensor, .rebuildTensorV2, .rebuildTensorV3, .rebuildParameter, .unreadableTensor:
            return try call(function, heap.sequences[number])
        default: throw refused("a tensor that another function rebuilds")
        }
    }

    private mutating func unreadable(_ reason: UnreadableTensor) -> PickleValue {
        heap.unreadable.append(reason)
        return .unreadable(heap.unreadable.count - 1)
    }

    /// (storage, offset in elements, sizes, strides in elements, …)
    private mutating func tensor(
        _ arguments: [PickleValue], counts: ClosedRange<Int>, element given: TorchElement?
    ) throws -> PickleValue {
        guard counts.contains(arguments.count), case .storage(let storage) = arguments[0], case .int(let offset) = arguments[1],
            case .tuple(let sizes) = arguments[2], case .tuple(let strides) = arguments[3]
        else { throw malformed("storage, offset, sizes and strides of a tensor", "other arguments") }
        let element = given ?? heap.storages[storage].element
        guard let dtype = element.dtype else { return unreadable(.kind(element.name)) }
        let extents = try (sizes: extents(sizes), strides: extents(strides))
        guard extents.sizes.count == extents.strides.count else {
            throw malformed("\(extents.sizes.count) strides", "\(extents.strides.count)")
        }
        guard extents.sizes.count <= Shape.maximumRank else { return unreadable(.rank(Array(extents.sizes.prefix(64)))) }
        let tensor = TorchTensor(
            storage: storage, dtype: dtype, offset: offset, sizes: Shape(extents.sizes), strides: Shape(extents.strides))
        try check(tensor)
        heap.tensors.append(tensor)
        return .tensor(heap.tensors.count - 1)
    }

    private func extents(_ tuple: Int) throws -> [Int] {
        try heap.sequences[tuple].map { value in
            guard case .int(let number) = value, number >= 0 else {
                throw malformed("whole numbers as sizes and strides", "another value")
            }
            return number
        }
    }

    /// Every element must lie inside the storage.
    private func check(_ tensor: TorchTensor) throws {
        let (sizes, strides) = (tensor.sizes, tensor.strides)
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

    /// `("storage", type, key, location, element count)`. Files without a zip archive add a sixth item: `None`, or
    /// `(view key, offset, size)` for a part of that storage.
    mutating func persistentObject(_ id: PickleValue) throws -> PickleValue {
        let count = payload == nil ? 6 : 5
        guard case .tuple(let number) = id else { throw refused("a persistent id that is not a tuple") }
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

    private func key(_ range: Range<Int>) throws -> ByteText {
        guard range.count <= 256 else { throw malformed("a storage key", "\(range.count) bytes") }
        return try ByteText(file.text(range))
    }

    private mutating func storage(_ type: TorchGlobal, key: ByteText, elements: Int) throws -> Int {
        guard case .storage(let element) = type else { throw refused("a storage of another type") }
        let (byteCount, overflow) = elements.multipliedReportingOverflow(by: element.byteCount)
        guard elements >= 0, !overflow else { throw malformed("a storage size", "\(elements) elements") }
        if let known = heap.storageByKey[key] {
            guard heap.storages[known].byteCount == byteCount, heap.storages[known].element == element else {
                throw malformed("storage \(key) with one type and size", "another")
            }
            return known
        }
        var storage = TorchStorage(element: element, byteCount: byteCount)
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
        let width = whole.element.byteCount
        guard view.count == 3, case .int(let offset) = view[1], case .int(let size) = view[2], offset >= 0, size >= 0,
            offset <= whole.byteCount / width, size <= whole.byteCount / width - offset
        else { throw malformed("a storage view inside \(whole.byteCount) bytes", "another") }
        return add(TorchStorage(element: whole.element, byteCount: size * width, parent: (storage, offset * width)))
    }

    private mutating func add(_ storage: TorchStorage) -> Int {
        heap.storages.append(storage)
        return heap.storages.count - 1
    }
}
