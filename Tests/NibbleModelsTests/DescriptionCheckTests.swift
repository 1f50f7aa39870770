import Foundation
import NibbleCore
import NibbleModels
import NibbleTestSupport
import Testing

/// Descriptions that contradict their module tree: each must be a ``ModelError`` before anything runs.
@Suite struct DescriptionCheckTests {
    private func architecture(_ name: String) throws -> ModelArchitecture {
        let file = Fixtures.repository.appending(path: "Tests/Fixtures/trees/\(name).json")
        let config = try #require(try JSONValue(contentsOf: file)["config"]?.object)
        return try ModelRegistry.architecture(ConfigReader(config, file: name))
    }

    @Test("every family's description fits its tree", arguments: ConfigTests.names)
    func families(name: String) throws { try architecture(name).check() }

    /// A change to a description; `nil` where it changes nothing for this model.
    struct Mutation: Sendable, CustomStringConvertible {
        let description: String
        let apply: @Sendable (ModelArchitecture) -> ModelArchitecture?

        init(_ description: String, _ apply: @escaping @Sendable (ModelArchitecture) -> ModelArchitecture?) {
            self.description = description
            self.apply = apply
        }

        /// A change to the decoder's stack.
        static func stack(
            _ description: String, _ change: @escaping @Sendable (inout StackDescription) -> Bool
        ) -> Mutation {
            Mutation(description) { architecture in
                var decoder = architecture.decoder
                return change(&decoder) ? architecture.with(decoder: decoder) : nil
            }
        }

        /// A change to the first attention.
        static func attention(
            _ description: String, _ change: @escaping @Sendable (inout AttentionDescription) -> Bool
        ) -> Mutation {
            stack(description) { stack in
                guard let layer = stack.layers.firstIndex(where: { $0.selfAttention != nil }) else { return false }
                return change(&stack.layers[layer].attention)
            }
        }

        /// A change to the first layer with a recurrent mixer.
        static func recurrent(_ description: String, _ change: @escaping @Sendable (inout LayerDescription) -> Void) -> Mutation {
            stack(description) { stack in
                guard let layer = stack.layers.firstIndex(where: { $0.recurrence != nil }) else { return false }
                change(&stack.layers[layer])
                return true
            }
        }

        /// A change to the first gated delta net.
        static func gatedDelta(
            _ description: String, _ change: @escaping @Sendable (inout GatedDeltaDescription) -> Void
        ) -> Mutation {
            stack(description) { stack in
                for layer in stack.layers.indices {
                    guard case .gatedDelta(var delta)? = stack.layers[layer].recurrence else { continue }
                    change(&delta)
                    stack.layers[layer].recurrence = .gatedDelta(delta)
                    return true
                }
                return false
            }
        }
    }

    static let mutations: [Mutation] = [
        .attention("twice the heads") {
            $0.heads *= 2
            return true
        },
        .attention("half the heads") { attention in
            guard attention.heads % 2 == 0, attention.heads / 2 % attention.keyValueHeads == 0 else { return false }
            attention.heads /= 2
            return true
        },
        .attention("other key/value heads") { attention in
            let (heads, old) = (attention.heads, attention.keyValueHeads)
            guard let other = (1...heads).first(where: { heads % $0 == 0 && $0 != old }) else { return false }
            attention.keyValueHeads = other
            return true
        },
        .attention("heads that make no whole groups") {
            $0.keyValueHeads = $0.heads + 1
            return true
        },
        .attention("no heads") {
            $0.heads = 0
            return true
        },
        .attention("twice the head size") {
            $0.headSize *= 2
            return true
        },
        .attention("keys where the queries are") {
            $0.layout.key = $0.layout.query
            return $0.heads > 0
        },
        .attention("a layout that begins too late") {
            $0.layout.query.offset += $0.headSize
            return true
        },
        .attention("a layout with wide gaps") {
            $0.layout.value.stride += 1
            return $0.keyValueHeads > 1
        },
        .attention("sinks ignored, or sinks that are not there") {
            $0.hasSinks.toggle()
            return true
        },
        .attention("an infinite scale") {
            $0.scale = .infinity
            return true
        },
        .attention("an empty window") {
            $0.window = 0
            return true
        },
        .attention("a slope short") { attention in
            guard case .alibi(let slopes) = attention.bias else { return false }
            attention.bias = .alibi(slopes: Array(slopes.dropLast()))
            return true
        },
        .attention("relative biases without a table") { attention in
            guard case .none = attention.bias else { return false }
            attention.bias = .relative(isBidirectional: false, maximumDistance: 8)
            return true
        },
        .attention("a rotary embedding that is not there") {
            $0.rotary = 7
            return true
        },
        .attention("a gate that is not there, or one ignored") {
            $0.outputGate = $0.outputGate == nil ? .init(offset: $0.headSize, stride: 2 * $0.headSize) : nil
            return true
        },
        .recurrent("a recurrent mixer ignored") { $0.recurrence = nil },
        .recurrent("attention where there is none") { $0.selfAttention = AttentionDescription(heads: 1, headSize: 8) },
        .recurrent("another mixer") { $0.recurrence = .shortConvolution(.init(width: 7, kernel: 3)) },
        .gatedDelta("a longer convolution") { $0.kernel += 1 },
        .gatedDelta("a convolution of one") { $0.kernel = 1 },
        .gatedDelta("twice the key heads") { $0.keyHeads *= 2 },
        .gatedDelta("value heads that make no whole groups") { $0.valueHeads += 1 },
        .gatedDelta("wider keys") { $0.keySize += 1 },
        .gatedDelta("other projections") { $0.projections = $0.projections == .byKeyHead ? .sideBySide : .byKeyHead },
        .stack("no feed-forward") { stack in
            if case FeedForwardDescription.none = stack.layers[0].feedForward { return false }
            stack.layers[0].feedForward = .none
            return true
        },
        .stack("relative biases ignored") { stack in
            guard case .relative = stack.layers[0].attention.bias else { return false }
            for layer in stack.layers.indices { stack.layers[layer].attention.bias = .none }
            return true
        },
        .stack("one layer short") {
            $0.layers.removeLast()
            return true
        },
        .stack("one layer more") {
            $0.layers.append($0.layers[0])
            return true
        },
        .stack("no layers") {
            $0.layers = []
            return true
        },
        .stack("another module") {
            $0.path = "nowhere"
            return true
        },
        .stack("another width") {
            $0.width += 1
            return true
        },
        .stack("positions ignored") { stack in
            if case .none = stack.positions { return false }
            stack.positions = .none
            return true
        },
        .stack("positions without a table") { stack in
            guard case .none = stack.positions else { return false }
            stack.positions = .learned(offset: 0)
            return true
        },
        .stack("positions beyond the table") { stack in
            guard case .learned = stack.positions else { return false }
            stack.positions = .learned(offset: 1 << 20)
            return true
        },
        .stack("more rotated than the head has") { stack in
            guard !stack.rotary.isEmpty, stack.layers.contains(where: { $0.attention.rotary == 0 }) else { return false }
            stack.rotary[0].rotated = (stack.layers.map(\.attention.headSize).max() ?? 0) + 2
            return true
        },
        .stack("a plain feed-forward for a gated one, or the reverse") { stack in
            switch stack.layers[0].feedForward {
            case .none: return false
            case .plain(let activation): stack.layers[0].feedForward = .gated(activation)
            case .gated: stack.layers[0].feedForward = .plain(.silu)
            case .experts: stack.layers[0].feedForward = .gated(.silu)
            }
            return true
        },
        .stack("an expert more") { $0.changeExperts { $0.count += 1 } },
        .stack("wider experts") { $0.changeExperts { $0.width += 1 } },
        .stack("a choice bias ignored, or one that is not there") {
            $0.changeExperts { $0.router.choiceBias = $0.router.choiceBias == nil ? "nowhere" : nil }
        },
        .stack("groups that do not divide the experts") {
            $0.changeExperts { $0.router.groups = .init(count: $0.count + 1, chosen: 1, score: .largest) }
        },
        .stack("more groups chosen than there are") {
            $0.changeExperts { $0.router.groups = .init(count: 1, chosen: 2, score: .largest) }
        },
        .stack("groups too small for their best two") {
            $0.changeExperts { $0.router.groups = .init(count: $0.count, chosen: $0.count, score: .sumOfBestTwo) }
        },
        .stack("weights scaled by NaN") { $0.changeExperts { $0.router.scale = .nan } },
        .stack("no expert chosen") { $0.changeExperts { $0.topK = 0 } },
        .stack("more experts chosen than there are") { $0.changeExperts { $0.topK = $0.count + 1 } },
        .stack("cross-attention where there is none, or none where it is") { stack in
            stack.layers[0].crossAttention = stack.layers[0].crossAttention == nil ? stack.layers[0].attention : nil
            return true
        },
        .stack("cross-attention with twice the heads") { stack in
            guard stack.layers[0].crossAttention != nil else { return false }
            stack.layers[0].crossAttention?.heads *= 2
            return true
        },
        Mutation("another vocabulary") { $0.with(vocabularySize: $0.vocabularySize + 1) },
        Mutation("an encoder that is one layer short") { architecture in
            guard var encoder = architecture.encoder else { return nil }
            encoder.layers.removeLast()
            return architecture.with(encoder: encoder)
        },
        Mutation("an encoder with twice the heads") { architecture in
            guard var encoder = architecture.encoder else { return nil }
            encoder.layers[0].attention.heads *= 2
            return architecture.with(encoder: encoder)
        },
        Mutation("a bias that is not stored") { architecture in
            var head = architecture.head
            head.biasPath = "nowhere"
            return architecture.with(head: head)
        },
        Mutation("no output embedding") { architecture in
            architecture.with(
                root: architecture.tree.root.changing { $0.node.role == .head ? .some(nil) : nil } ?? architecture.tree.root)
        },
    ]

    @Test("a description that does not fit is refused", arguments: ConfigTests.names)
    func descriptions(name: String) throws {
        let architecture = try architecture(name)
        var applied = 0
        for mutation in Self.mutations {
            guard let mutant = mutation.apply(architecture) else { continue }
            applied += 1
            #expect(throws: ModelError.self, "\(mutation)") { try mutant.check() }
        }
        #expect(applied > 12)
    }

    @Test("heads that are normalized together are not each on its own", arguments: ["olmo2", "qwen3", "cohere_qk_norm"])
    func normScope(name: String) throws {
        let architecture = try architecture(name)
        var decoder = architecture.decoder
        for layer in decoder.layers.indices {
            let scope = decoder.layers[layer].attention.normScope
            decoder.layers[layer].attention.normScope = scope == .head ? .token : .head
        }
        #expect(throws: ModelError.self) { try architecture.with(decoder: decoder).check() }
    }

    /// Roles that a family may do without.
    private static let optional: Set<Role> = [
        .embeddingNorm, .finalNorm, .positionEmbedding, .projectIn, .projectOut, .queryNorm, .keyNorm, .valueNorm,
        .feedForwardNorm,
        .attentionNorm, .attentionOutputNorm, .feedForwardOutputNorm, .relativeBias, .feedForward, .tokenEmbedding,
        .attentionResidualNorm, .feedForwardResidualNorm, .crossAttentionNorm, .crossAttentionResidualNorm,
    ]

    @Test("every module with weights is read by a role, in its own shape", arguments: ConfigTests.names)
    func trees(name: String) throws {
        let architecture = try architecture(name)
        let tree = architecture.tree
        let roles = Set(tree.modules.compactMap(\.node.role)).subtracting([.block])
        for role in roles {
            let first = try #require(tree.located.first(role))
            let isShared = tree.tied.contains { $0.source.hasPrefix(first.path + ".") || $0.target.hasPrefix(first.path + ".") }
            func check(_ what: String, _ change: (ModuleNode) -> ModuleNode?) {
                let root = tree.root.changing { $0.path == first.path ? .some(change($0.node)) : nil } ?? tree.root
                #expect(throws: ModelError.self, "\(role): \(what)") { try architecture.with(root: root).check() }
            }
            // A table that others share is found through them.
            if !isShared, role != .feedForward { check("without its role") { $0.with(role: nil) } }
            if !Self.optional.contains(role) { check("left out") { _ in nil } }
            for (place, parameter) in first.node.parameters.enumerated() where parameter.name != "bias" {
                for axis in 0..<parameter.shape.rank
                where axis > 0 || ![.relativeBias, .positionEmbedding, .perLayerEmbedding].contains(role) {
                    // The number of positions, of buckets and of a second table's rows is the table's to say.
                    check("\(parameter.name) longer along axis \(axis)") { $0.widened(parameter: place, axis: axis) }
                }
            }
        }
    }

    @Test("a module that no role reads is refused", arguments: ConfigTests.names)
    func unread(name: String) throws {
        let architecture = try architecture(name)
        let block = try #require(architecture.tree.located.first(.block))
        let attention = try #require(block.first(.selfAttention) ?? block.first(.recurrence))
        let extra = [
            ModuleNode("extra", "Linear", kind: .linear, parameters: [.init("weight", [4, 4])]),
            ModuleNode("extra", "Linear", kind: .linear, role: .attentionOutput, parameters: [.init("weight", [4, 4])]),
            ModuleNode("extra", "LayerNorm", kind: .norm(.init(kind: .layer, epsilon: 1e-5)), parameters: [.init("weight", [4])]),
        ]
        for (place, module) in [block, attention].enumerated() {
            for node in extra {
                let root = architecture.tree.root.changing { located in
                    located.path == module.path ? .some(located.node.with(child: node)) : nil
                }
                let mutant = architecture.with(root: root ?? architecture.tree.root)
                let wanted = module.path + ".extra"
                do {
                    try mutant.check()
                    Issue.record("\(node.className) in \(place) passes")
                } catch ModelError.wrongDescription(let found, _, _) {
                    #expect(found == wanted)
                }
            }
        }
    }

    @Test("the error names module, expected and found")
    func message() throws {
        let architecture = try architecture("llama")
        var decoder = architecture.decoder
        decoder.layers.removeLast()
        let error = #expect(throws: ModelError.self) { try architecture.with(decoder: decoder).check() }
        #expect(
            error?.description
                == "the description of the model is wrong: model should be 1 described blocks, found 2 modules")
    }
}

// MARK: - Changed descriptions

extension StackDescription {
    fileprivate mutating func changeExperts(_ change: (inout ExpertsDescription) -> Void) -> Bool {
        for layer in layers.indices {
            guard case .experts(var experts) = layers[layer].feedForward else { continue }
            change(&experts)
            layers[layer].feedForward = .experts(experts)
            return true
        }
        return false
    }
}

extension ModelArchitecture {
    func with(
        decoder: StackDescription? = nil, encoder: StackDescription? = nil, head: HeadDescription? = nil, root: ModuleNode? = nil,
        vocabularySize: Int? = nil
    ) -> ModelArchitecture {
        let tree = ModuleTree(
            root: root ?? self.tree.root, tied: self.tree.tied, noSplitClasses: self.tree.noSplitClasses,
            keepInFloat32: self.tree.keepInFloat32, alwaysFloat32: self.tree.alwaysFloat32,
            outputEmbedding: self.tree.outputEmbedding)
        return ModelArchitecture(
            modelType: modelType, tree: tree, keys: keys, decoder: decoder ?? self.decoder, encoder: encoder ?? self.encoder,
            head: head ?? self.head, vocabularySize: vocabularySize ?? self.vocabularySize, maximumPositions: maximumPositions)
    }
}

extension ModuleNode {
    /// The tree with `change` of some modules: `nil` leaves a module to its children, `.some(nil)` takes it out.
    fileprivate func changing(_ change: (LocatedModule) -> ModuleNode??, at path: String = "") -> ModuleNode? {
        let located = LocatedModule(path: path, node: self)
        if let changed = change(located) { return changed }
        return with(children: children.compactMap { $0.changing(change, at: located.path(of: $0.name)) })
    }

    fileprivate func with(children: [ModuleNode]) -> ModuleNode {
        ModuleNode(
            name, className, kind: kind, role: role, parameters: parameters, buffers: buffers, children: children,
            expertsLayout: expertsLayout)
    }

    fileprivate func with(child: ModuleNode) -> ModuleNode { with(children: children + [child]) }

    fileprivate func with(role: Role?) -> ModuleNode {
        ModuleNode(
            name, className, kind: kind, role: role, parameters: parameters, buffers: buffers, children: children,
            expertsLayout: expertsLayout)
    }

    fileprivate func widened(parameter place: Int, axis: Int) -> ModuleNode {
        var dimensions = parameters[place].shape.dimensions
        dimensions[axis] += 1
        var changed = parameters
        changed[place] = Parameter(parameters[place].name, Shape(dimensions))
        return ModuleNode(
            name, className, kind: kind, role: role, parameters: changed, buffers: buffers, children: children,
            expertsLayout: expertsLayout)
    }
}
