package import NibbleCore
package import NibbleModels

/// Bytes of every module and tensor of a tree, as transformers' planner counts them.
///
/// A parameter or buffer counts elements × element size, a quantized weight 1 or ½ byte an element, without its scales. Tied
/// targets count 0. Sizes may be half bytes, so they are doubles (exact up to 2⁵³).
package struct ModuleSizes: Sendable {
    struct Module: Sendable {
        var className: String
        /// Full names, in definition order.
        var children: [String]
        var parameters: [String]
        var buffers: [String]
    }

    /// By full name; the root's is empty.
    let modules: [String: Module]
    /// Of modules, parameters and buffers, by full name.
    private let bytes: [String: Double]
    let noSplitClasses: Set<String>
    /// The names of each shared parameter: targets, sorted, then the source.
    let tiedGroups: [[String]]

    /// - Parameters:
    ///   - loadDType: of buffers that follow it.
    ///   - parameterBytes: the size of one parameter. Not called for tied targets.
    package init(_ tree: ModuleTree, loadDType: DType = .float32, parameterBytes: (LocatedParameter) -> Double) {
        var modules: [String: Module] = [:]
        var bytes: [String: Double] = [:]
        for parameter in tree.parameters { bytes[parameter.path] = parameter.tiedTo == nil ? parameterBytes(parameter) : 0 }
        for module in tree.modules {
            modules[module.path] = Module(
                className: module.node.className, children: module.children.map(\.path),
                parameters: module.node.parameters.map { module.path(of: $0.name) },
                buffers: module.node.buffers.map { module.path(of: $0.name) })
            for buffer in module.node.buffers {
                bytes[module.path(of: buffer.name)] = Double(buffer.byteCount(loadDType: loadDType))
            }
        }
        // Children follow their parents, so sums are built from the back.
        for module in tree.modules.reversed() {
            guard let entry = modules[module.path] else { continue }
            bytes[module.path] = (entry.parameters + entry.buffers + entry.children).reduce(0) { $0 + (bytes[$1] ?? 0) }
        }
        self.modules = modules
        self.bytes = bytes
        noSplitClasses = tree.noSplitClasses
        tiedGroups = ModuleSizes.groups(tree.tied)
    }

    /// Sizes of a model that is quantized as `plan` says and otherwise stored in `loadDType`. The reference does not know that
    /// some parameters of a float16 model stay in float32, so they count as float16.
    package init(_ tree: ModuleTree, _ plan: QuantizationPlan, loadDType: DType) {
        self.init(tree, loadDType: loadDType) { parameter in
            let count = Double(parameter.shape.count)
            guard let config = plan.config, plan.isQuantized(parameter.module.path), parameter.isMatrix else {
                return count * Double(loadDType.byteCount)
            }
            let floats = Double(plan.floatCount(parameter.path))
            return floats * Double(loadDType.byteCount) + (config.loadIn4Bit ? (count - floats) / 2 : count - floats)
        }
    }

    private static func groups(_ tied: [(target: String, source: String)]) -> [[String]] {
        var sources = [String]()
        var targets: [String: [String]] = [:]
        for pair in tied {
            if targets[pair.source] == nil { sources.append(pair.source) }
            targets[pair.source, default: []].append(pair.target)
        }
        return sources.map { (targets[$0] ?? []).sorted() + [$0] }
    }

    /// Of a module, parameter or buffer; 0 for an unknown name.
    package subscript(name: String) -> Double { bytes[name] ?? 0 }

    package var total: Double { self[""] }

    /// Whether `name` is a module that may be divided between devices.
    func isDivisible(_ name: String) -> Bool {
        guard let module = modules[name] else { return false }
        return !module.children.isEmpty && !noSplitClasses.contains(module.className)
    }

    /// The largest module that is never divided.
    var largestUndivided: Double {
        modules.filter { noSplitClasses.contains($0.value.className) }.map { self[$0.key] }.max() ?? 0
    }

    /// The largest sum of a single module's own tensors.
    var largestOwn: Double {
        modules.values.map { module in (module.parameters + module.buffers).reduce(0) { $0 + self[$1] } }.max() ?? 0
    }

    /// The size of the largest layer (a module without children or of an undivided class) at or below `names`, and all
    /// layers that have it.
    func largestLayers(_ names: [String], countingParameters: Bool = false) -> (bytes: Double, names: Set<String>) {
        var largest = 0.0
        var found = Set<String>()
        var stack = Array(names.reversed())
        while let name = stack.popLast() {
            if modules[name] == nil, !countingParameters { continue }
            if isDivisible(name) {
                stack.append(contentsOf: (modules[name]?.children ?? []).reversed())
                continue
            }
            let size = self[name]
            if size > largest { (largest, found) = (size, [name]) } else if size == largest { found.insert(name) }
        }
        return (largest, found)
    }
}

extension LocatedParameter {
    /// Whether quantizing its module replaces it: anything but a bias.
    var isMatrix: Bool { shape.rank >= (module.isExperts ? 3 : 2) }
}
