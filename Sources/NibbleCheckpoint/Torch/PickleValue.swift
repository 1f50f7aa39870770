import NibbleCore

/// A value on the stack of a ``PickleMachine``.
///
/// Containers, storages and tensors are indices into a ``PickleHeap``: no value owns another, so that neither cycles nor a
/// million nested lists do any harm.
enum PickleValue: Sendable {
    case none
    case bool(Bool)
    case int(Int)
    /// Text, as the range of the file that holds its UTF-8.
    case text(Range<Int>)
    /// Read, and of no use in a state dict: floats, long integers, bytes, sets, devices.
    case opaque
    case tuple(Int)
    case list(Int)
    case dict(Int)
    case global(TorchGlobal)
    case storage(Int)
    case tensor(Int)
    /// A tensor of a kind that is not supported, as an index into ``PickleHeap/unreadable``.
    case unreadable(Int)
}

/// What the values of one file's pickles refer to.
struct PickleHeap {
    /// Tuples and lists.
    var sequences: [[PickleValue]] = []
    /// Keys and values in turn, in the order in which they were set.
    var dicts: [[PickleValue]] = []
    var storages: [TorchStorage] = []
    var tensors: [TorchTensor] = []
    var unreadable: [UnreadableTensor] = []
    /// Storage key → index into `storages`.
    var storageByKey: [ByteText: Int] = [:]
    /// Elements of dicts that were made from other containers.
    var copiedCount = 0

    /// What bounds the memory that a pickle can take.
    var objectCount: Int { sequences.count + dicts.count + storages.count + tensors.count + unreadable.count + copiedCount }

    mutating func sequence(_ elements: [PickleValue]) -> Int {
        sequences.append(elements)
        return sequences.count - 1
    }

    mutating func dict(_ items: [PickleValue] = []) -> Int {
        dicts.append(items)
        return dicts.count - 1
    }
}

/// The element type of a storage.
struct TorchElement: Sendable, Equatable {
    /// As torch names it: `float32`, `complex64` …
    let name: String
    let byteCount: Int
    /// `nil` for a type that is not supported, and for raw bytes.
    let dtype: DType?

    static let rawBytes = TorchElement(name: "raw bytes", byteCount: 1, dtype: nil)

    init(_ dtype: DType) { self.init(name: dtype.rawValue, byteCount: dtype.byteCount, dtype: dtype) }

    init(name: String, byteCount: Int, dtype: DType? = nil) {
        self.name = name
        self.byteCount = byteCount
        self.dtype = dtype
    }
}

/// A run of elements in the file that tensors are views of.
struct TorchStorage {
    let element: TorchElement
    let byteCount: Int
    /// From the file's start. In the form without a zip archive it is known only after the pickle.
    var fileOffset = 0
    /// For a part of another storage: the index of that storage, and where in it this part begins.
    var parent: (storage: Int, byteOffset: Int)?
}

/// A view of a storage. Offsets and strides count elements.
struct TorchTensor {
    let storage: Int
    let dtype: DType
    let offset: Int
    let sizes: Shape
    let strides: Shape
}

/// Why a tensor cannot be read.
enum UnreadableTensor {
    /// An element type or a layout: `complex64`, `a sparse tensor` …
    case kind(String)
    /// More dimensions than ``Shape`` holds.
    case rank([Int])
}

/// The globals that a state dict may name: those that `torch.load(weights_only=True)` allows. A global is looked up in a
/// table by its exact name; nothing is imported.
enum TorchGlobal: Sendable, Equatable {
    case orderedDict, counter, size
    case rebuildTensor, rebuildTensorV2, rebuildTensorV3
    /// Returns its first argument, a tensor.
    case rebuildParameter
    /// Calls the rebuild function that is its first argument; attributes of the tensor follow.
    case rebuildFromType
    /// A function or class whose result is a tensor of an unsupported kind.
    case unreadableTensor(String)
    /// `torch.nn.Parameter` and `torch.Tensor`
    case tensorClass
    /// A call gives a value that no state dict needs: a device, bytes, a complex number, a set.
    case ignored
    case storage(TorchElement)
    case dtype(TorchElement)

    init?(module: String, name: String) {
        guard let known = Self.table[ByteText("\(module) \(name)")] else { return nil }
        self = known
    }

    private static let table: [ByteText: TorchGlobal] = {
        var table: [ByteText: TorchGlobal] = [
            "collections OrderedDict": .orderedDict, "collections Counter": .counter, "torch Size": .size,
            "torch._utils _rebuild_tensor": .rebuildTensor,
            "torch._utils _rebuild_tensor_v2": .rebuildTensorV2,
            "torch._utils _rebuild_tensor_v3": .rebuildTensorV3,
            "torch._utils _rebuild_parameter": .rebuildParameter,
            "torch._utils _rebuild_parameter_with_state": .rebuildParameter,
            "torch._utils _rebuild_device_tensor_from_cpu_tensor": .rebuildParameter,
            "torch._tensor _rebuild_from_type_v2": .rebuildFromType,
            "torch._utils _rebuild_sparse_tensor": .unreadableTensor("a sparse tensor"),
            "torch._utils _rebuild_sparse_csr_tensor": .unreadableTensor("a sparse tensor"),
            "torch._utils _rebuild_nested_tensor": .unreadableTensor("a nested tensor"),
            "torch._utils _rebuild_qtensor": .unreadableTensor("a quantized tensor of torch"),
            "torch._utils _rebuild_meta_tensor_no_storage": .unreadableTensor("a tensor without elements (device meta)"),
            "torch._utils _rebuild_wrapper_subclass": .unreadableTensor("a tensor subclass"),
            "torch._utils _rebuild_device_tensor_from_numpy": .unreadableTensor("a tensor stored as a NumPy array"),
            "torch.nn.parameter Parameter": .tensorClass, "torch Tensor": .tensorClass,
            "torch.serialization _get_layout": .ignored, "torch device": .ignored, "_codecs encode": .ignored,
            "torch.storage UntypedStorage": .storage(.rawBytes), "torch UntypedStorage": .storage(.rawBytes),
        ]
        for module in ["builtins", "__builtin__"] {
            for name in ["set", "frozenset", "bytearray", "bytes", "complex"] { table["\(module) \(name)"] = .ignored }
        }
        for scheme in [
            "per_tensor_affine", "per_tensor_symmetric", "per_channel_affine", "per_channel_symmetric",
            "per_channel_affine_float_qparams",
        ] { table["torch \(scheme)"] = .ignored }
        for (name, element) in storages {
            for module in ["torch", "torch.cuda"] { table["\(module) \(name)Storage"] = .storage(element) }
            for module in ["torch", "torch.cuda"] { table["\(module) \(name)Tensor"] = .tensorClass }
        }
        for dtype in DType.allCases { table["torch \(dtype.rawValue)"] = .dtype(TorchElement(dtype)) }
        for element in otherElements { table["torch \(element.name)"] = .dtype(element) }
        return table
    }()

    private static let storages: [(String, TorchElement)] = [
        ("Float", .init(.float32)), ("Double", .init(.float64)), ("Half", .init(.float16)), ("BFloat16", .init(.bfloat16)),
        ("Long", .init(.int64)), ("Int", .init(.int32)), ("Short", .init(.int16)), ("Char", .init(.int8)),
        ("Byte", .init(.uint8)), ("Bool", .init(.bool)),
        ("ComplexFloat", .init(name: "complex64", byteCount: 8)), ("ComplexDouble", .init(name: "complex128", byteCount: 16)),
        ("QUInt8", .init(name: "quint8", byteCount: 1)), ("QInt8", .init(name: "qint8", byteCount: 1)),
        ("QInt32", .init(name: "qint32", byteCount: 4)), ("QUInt4x2", .init(name: "quint4x2", byteCount: 1)),
        ("QUInt2x4", .init(name: "quint2x4", byteCount: 1)),
    ]

    /// The types of torch that no weight is computed in.
    private static let otherElements: [TorchElement] = {
        let small = [
            "quint8", "qint8", "quint4x2", "quint2x4", "float8_e4m3fnuz", "float8_e5m2fnuz", "float8_e8m0fnu",
            "float4_e2m1fn_x2", "bits8", "bits1x8", "bits2x4", "bits4x2",
        ]
        let narrow = (1...7).flatMap { ["uint\($0)", "int\($0)"] }
        let wide = [("complex32", 4), ("complex64", 8), ("complex128", 16), ("qint32", 4), ("bits16", 2)]
        return (small + narrow).map { TorchElement(name: $0, byteCount: 1) }
            + wide.map { TorchElement(name: $0.0, byteCount: $0.1) }
    }()
}
