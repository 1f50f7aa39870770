import NibbleCore

// Families call what is marked `@inline(never)` hundreds of times. Inlined, it is a tenth of the module's compilation.

/// Lets a family write its module tree in the order of the reference's definition.
@resultBuilder
enum ModuleBuilder {
    @inline(never)
    static func buildExpression(_ node: ModuleNode) -> [ModuleNode] { [node] }
    static func buildExpression(_ nodes: [ModuleNode]) -> [ModuleNode] { nodes }
    static func buildBlock(_ parts: [ModuleNode]...) -> [ModuleNode] { parts.flatMap { $0 } }
    static func buildOptional(_ part: [ModuleNode]?) -> [ModuleNode] { part ?? [] }
    static func buildEither(first: [ModuleNode]) -> [ModuleNode] { first }
    static func buildEither(second: [ModuleNode]) -> [ModuleNode] { second }
    static func buildArray(_ parts: [[ModuleNode]]) -> [ModuleNode] { parts.flatMap { $0 } }
}

func module(
    _ name: String, _ className: String, role: Role? = nil, parameters: [ModuleNode.Parameter] = [],
    buffers: [ModuleNode.Buffer] = [], @ModuleBuilder _ children: () -> [ModuleNode] = { [] }
) -> ModuleNode {
    ModuleNode(name, className, role: role, parameters: parameters, buffers: buffers, children: children())
}

/// A `ModuleList` of `count` modules named by their index.
func list(_ name: String, _ count: Int, _ element: (_ index: Int, _ name: String) -> ModuleNode) -> ModuleNode {
    ModuleNode(name, "ModuleList", children: (0..<count).map { element($0, String($0)) })
}

@inline(never)
func linear(
    _ name: String, _ outFeatures: Int, _ inFeatures: Int, bias: Bool = false, role: Role?, className: String = "Linear",
    kind: ModuleNode.Kind = .linear
) -> ModuleNode {
    let weight: Shape = if case .transposedLinear = kind { [inFeatures, outFeatures] } else { [outFeatures, inFeatures] }
    return ModuleNode(
        name, className, kind: kind, role: role,
        parameters: [.init("weight", weight)] + (bias ? [.init("bias", [outFeatures])] : []))
}

func embedding(
    _ name: String, _ rows: Int, _ width: Int, role: Role?, className: String = "Embedding",
    buffers: [ModuleNode.Buffer] = []
) -> ModuleNode {
    ModuleNode(
        name, className, kind: .embedding, role: role, parameters: [.init("weight", [rows, width])], buffers: buffers)
}

func layerNorm(
    _ name: String, _ width: Int, _ epsilon: Float, offset: Float = 0, bias: Bool = true, role: Role?,
    className: String = "LayerNorm"
) -> ModuleNode {
    layerNorm(name, [width], epsilon, offset: offset, bias: bias, role: role, className: className)
}

/// A layer norm over the last axis whose weight has `shape`; with several rows, one for each head. `isAffine: false` has
/// no weight at all.
func layerNorm(
    _ name: String, _ shape: Shape, _ epsilon: Float, offset: Float = 0, bias: Bool = true, isAffine: Bool = true, role: Role?,
    className: String = "LayerNorm"
) -> ModuleNode {
    let parameters: [ModuleNode.Parameter] = [.init("weight", shape)] + (bias ? [.init("bias", shape)] : [])
    return ModuleNode(
        name, className, kind: .norm(.init(kind: .layer, epsilon: epsilon, weightOffset: offset)), role: role,
        parameters: isAffine ? parameters : [])
}

/// `isAffine: false` has no weight.
@inline(never)
func rmsNorm(
    _ name: String, _ width: Int, _ epsilon: Float, offset: Float = 0, isAffine: Bool = true, role: Role?, className: String
) -> ModuleNode {
    ModuleNode(
        name, className, kind: .norm(.init(kind: .rms, epsilon: epsilon, weightOffset: offset)), role: role,
        parameters: isAffine ? [.init("weight", [width])] : [])
}

func dropout(_ name: String) -> ModuleNode { ModuleNode(name, "Dropout") }

/// A module without parameters: an activation, a rotary embedding …
func plain(_ name: String, _ className: String, buffers: [ModuleNode.Buffer] = []) -> ModuleNode {
    ModuleNode(name, className, buffers: buffers)
}

/// The two non-persistent frequency buffers that rotary modules hold, or two a layer type.
func rotaryModule(_ name: String, _ className: String, rotated: Int, layerTypes: [String] = []) -> ModuleNode {
    rotaryModule(name, className, layerTypes.isEmpty ? [("", rotated)] : layerTypes.map { ($0 + "_", rotated) })
}

/// As ``rotaryModule(_:_:rotated:layerTypes:)``, with a number of rotated elements for each layer type's prefix.
func rotaryModule(_ name: String, _ className: String, _ types: [(prefix: String, rotated: Int)]) -> ModuleNode {
    plain(
        name, className,
        buffers: types.flatMap { type in
            ["inv_freq", "original_inv_freq"].map { ModuleNode.Buffer(type.prefix + $0, count: type.rotated / 2) }
        })
}

/// A causal convolution of each channel on its own.
func convolution(_ name: String, _ channels: Int, _ kernel: Int, bias: Bool = false) -> ModuleNode {
    ModuleNode(
        name, "Conv1d", role: .convolution,
        parameters: [.init("weight", [channels, 1, kernel])] + (bias ? [.init("bias", [channels])] : []))
}
