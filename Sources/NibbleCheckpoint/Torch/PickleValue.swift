import NibbleCore

/// What a state dict's pickle is made of.
///
/// Containers, storages and tensors are numbers into a ``PickleHeap``: a value never owns another, so that neither
/// cycles nor a million nested lists can hurt.
enum PickleValue: Sendable {
    case none
    case bool(Bool)
    case int(Int)
    /// Text, as the range of the file that holds its UTF-8.
    case text(Range<Int>)
    /// Of no use to a state dict, and not looked into: floats, long integers, sets.
    case opaque
    case tuple(Int)
    case list(Int)
    case dict(Int)
    case global(TorchGlobal)
    case storage(Int)
    case tensor(Int)
}

/// Everything the values of one file's pickles refer to.
struct PickleHeap {
    /// Tuples and lists.
    var sequences: [[PickleValue]] = []
    /// Keys and values in turn, in the order they were set.
    var dicts: [[PickleValue]] = []
    var storages: [TorchStorage] = []
    var tensors: [TorchTensor] = []
    /// Storage key → position in `storages`.
    var storageByKey: [String: Int] = [:]

    var objectCount: Int { sequences.count + dicts.count + storages.count + tensors.count }

    mutating func sequence(_ elements: [PickleValue]) -> Int {
        sequences.append(elements)
        return sequences.count - 1
    }

    mutating func dict() -> Int {
        dicts.append([])
        return dicts.count - 1
    }
}

/// A run of elements in the file that tensors are views of.
struct TorchStorage {
    /// `nil` for raw bytes.
    let dtype: DType?
    let byteCount: Int
    /// From the file's start. Known only later in the form without a zip archive.
    var fileOffset = 0
    /// For a part of another storage: that one's number, and where in it this one begins.
    var parent: (storage: Int, byteOffset: Int)?
}

/// A view of a storage. Offsets and strides count elements.
struct TorchTensor {
    let storage: Int
    let dtype: DType
    let offset: Int
    let sizes: Extents
    let strides: Extents

    /// The extents of a tensor that may have too many dimensions to be read.
    enum Extents {
        case known(Shape)
        /// More than four: the tuple they stand in.
        case tooMany(tuple: Int)
    }
}

/// The globals that a state dict may name. A global is looked up by its exact text in one table; nothing is imported.
enum TorchGlobal: Sendable, Equatable {
    case orderedDict, size
    case rebuildTensor, rebuildTensorV2, rebuildTensorV3, rebuildParameter
    case storage(DType)
    case untypedStorage
    case dtype(DType)

    init?(module: String, name: String) {
        guard let known = Self.table["\(module) \(name)"] else { return nil }
        self = known
    }

    private static let table: [String: TorchGlobal] = {
        var table: [String: TorchGlobal] = [
            "collections OrderedDict": .orderedDict,
            "torch Size": .size,
            "torch._utils _rebuild_tensor": .rebuildTensor,
            "torch._utils _rebuild_tensor_v2": .rebuildTensorV2,
            "torch._utils _rebuild_tensor_v3": .rebuildTensorV3,
            "torch._utils _rebuild_parameter": .rebuildParameter,
            "torch.storage UntypedStorage": .untypedStorage,
            "torch FloatStorage": .storage(.float32),
            "torch DoubleStorage": .storage(.float64),
            "torch HalfStorage": .storage(.float16),
            "torch BFloat16Storage": .storage(.bfloat16),
            "torch LongStorage": .storage(.int64),
            "torch IntStorage": .storage(.int32),
            "torch ShortStorage": .storage(.int16),
            "torch CharStorage": .storage(.int8),
            "torch ByteStorage": .storage(.uint8),
            "torch BoolStorage": .storage(.bool),
        ]
        for dtype in DType.allCases { table["torch \(dtype.rawValue)"] = .dtype(dtype) }
        return table
    }()
}
