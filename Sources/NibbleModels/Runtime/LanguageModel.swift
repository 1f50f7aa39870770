package import NibbleCore
import Synchronization

/// A model with its weights in place: what loading makes and generation runs.
package final class LanguageModel: GenerativeModel {
    package let architecture: ModelArchitecture
    package let options: SessionOptions
    let decoder: TransformerStack
    let encoder: TransformerStack?
    let head: Head
    /// The adapters that are attached, and what attaches them.
    package let adapters: AdapterRegistry
    /// How linear layers are stored and computed.
    private let formats: Set<WeightFormat>
    private let arithmetic: LinearArithmetic
    /// The buffers of the last session that ended, for the next one of its shape.
    private let idlePass = Mutex<IdlePass>(IdlePass())

    /// A pass that nobody uses. It passes from one thread to another.
    private struct IdlePass: @unchecked Sendable {
        var pass: DecoderPass?
    }

    package init(_ architecture: ModelArchitecture, _ weights: ModelWeights, options: SessionOptions) throws {
        self.architecture = architecture
        self.options = options
        decoder = try TransformerStack(architecture.decoder, architecture.tree, weights)
        encoder = try architecture.encoder.map { try TransformerStack($0, architecture.tree, weights) }
        head = try Head(architecture, weights)
        adapters = AdapterRegistry(weights)
        formats = weights.formats
        arithmetic = weights.linears.values.first?.arithmetic ?? LinearArithmetic()
    }

    /// What a session that feeds `tokens` tokens at a time asks of a backend.
    func workspaceRequest(_ backend: any Backend, tokens: Int, rows: Int, context: Int) -> WorkspaceRequest {
        architecture.workspaceRequest(
            architecture.decoder, holdsHead: backend === head.backend, tokens: tokens, rows: rows, context: context,
            formats: formats, arithmetic: arithmetic)
    }

    package var vocabularySize: Int { architecture.vocabularySize }
    package var isEncoderDecoder: Bool { encoder != nil }
    package var maximumPositions: Int? { architecture.maximumPositions }
    package var positionLimit: Int? { architecture.positionLimit }

    package func makeSession(_ request: SessionRequest) throws -> any DecodingSession {
        try DecoderSession(self, request)
    }

    /// The idle pass if it serves this shape, otherwise a new one. The idle one is freed first, so that both never exist.
    func takePass(_ shape: SessionShape) throws -> DecoderPass {
        let idle = idlePass.withLock { idle in
            defer { idle.pass = nil }
            return idle.pass.flatMap { $0.shape.serves(shape) ? $0 : nil }
        }
        return try idle ?? DecoderPass(self, shape)
    }

    /// Keeps a pass for the next session. Captured steps with cross attention know the addresses of one encoder's output, so
    /// those are not kept.
    func giveBack(_ pass: DecoderPass) {
        guard encoder == nil else { return }
        idlePass.withLock { $0.pass = pass }
    }
}

/// How sessions are sized and what they store.
package struct SessionOptions: Sendable {
    /// The dtype the model was loaded in; backends derive theirs from it.
    package var loadDType: DType
    /// Keys and values are stored in this form unless a session asks for another.
    package var cacheFormat: KeyValueFormat
    /// Longer feeds are run in chunks of this many tokens.
    package var chunkTokens: Int

    /// Tokens of a row that a session allocates memory for at once. What a row may hold beyond it is allocated when it is needed.
    package var initialCapacity: Int

    package static let defaultChunkTokens = 512
    package static let defaultInitialCapacity = 4096

    package init(
        loadDType: DType, cacheFormat: KeyValueFormat? = nil, chunkTokens: Int = defaultChunkTokens,
        initialCapacity: Int = defaultInitialCapacity
    ) {
        self.loadDType = loadDType
        self.initialCapacity = initialCapacity
        self.cacheFormat = cacheFormat ?? .dense(loadDType)
        self.chunkTokens = chunkTokens
    }

    func cacheFormat(_ request: SessionRequest) -> KeyValueFormat {
        request.cacheQuantization.map { .quantized($0) } ?? cacheFormat
    }
}

/// From hidden states to float32 logits.
struct Head: Sendable {
    let backend: any Backend
    let layer: LinearGroup
    private let description: HeadDescription
    private let stream: (any WeightStream)?

    init(_ architecture: ModelArchitecture, _ weights: ModelWeights) throws {
        let path = architecture.tree.outputEmbedding
        guard let module = architecture.tree.module(at: path) else {
            throw ModelError.missingWeight("weight", module: path)
        }
        var linear = try weights.linear(module)
        if let biasPath = architecture.head.biasPath, weights.tensors[biasPath] != nil {
            let bias = weights.tensors[biasPath]?.viewed(as: [linear.outFeatures])
            linear = Linear(
                name: linear.name, weight: linear.weight, bias: bias, arithmetic: linear.arithmetic,
                lowRankPlace: linear.lowRankPlace)
        }
        backend = weights.backend(path)
        layer = LinearGroup([linear])
        description = architecture.head
        stream = weights.stream(path, architecture.tree)
    }

    /// [n, E] → float32 [n, V]
    func callAsFunction(_ hidden: Tensor, adapters: AdapterRows?, into logits: Tensor) throws {
        let activation: Activation = description.softCap.map { .softCap($0) } ?? .identity
        try stream.during {
            try backend.linear(
                hidden, layer, epilogue: .init(activation: activation, scale: description.scale, adapters: adapters), into: logits
            )
        }
    }
}
