/// The largest sizes a session will ask of a backend.
public struct WorkspaceRequest: Sendable {
    /// T
    public var tokens: Int
    /// R
    public var rows: Int
    /// Keys a row can hold.
    public var context: Int
    /// The widest K and the widest ΣN of any linear call.
    public var inFeatures: Int
    public var outFeatures: Int
    /// H and D of attention.
    public var heads: Int
    public var headSize: Int
    public var vocabulary: Int
    /// How the linear layers' weights are stored; empty means any way.
    public var formats: Set<WeightFormat>
    /// How quantized products are computed.
    public var arithmetic: LinearArithmetic
    /// Mixtures only.
    public var experts: Experts?

    /// The largest mixture: X experts, k of them a token, width E, hidden width F.
    public struct Experts: Sendable, Equatable {
        public var count: Int
        public var topK: Int
        public var width: Int
        public var hidden: Int

        public init(count: Int, topK: Int, width: Int, hidden: Int) {
            self.count = count
            self.topK = topK
            self.width = width
            self.hidden = hidden
        }
    }

    public init(
        tokens: Int, rows: Int, context: Int, inFeatures: Int, outFeatures: Int, heads: Int, headSize: Int, vocabulary: Int,
        formats: Set<WeightFormat> = [], arithmetic: LinearArithmetic = .init(), experts: Experts? = nil
    ) {
        self.tokens = tokens
        self.rows = rows
        self.context = context
        self.inFeatures = inFeatures
        self.outFeatures = outFeatures
        self.heads = heads
        self.headSize = headSize
        self.vocabulary = vocabulary
        self.formats = formats
        self.arithmetic = arithmetic
        self.experts = experts
    }

    /// Sizes that serve both.
    public func widened(_ other: WorkspaceRequest) -> WorkspaceRequest {
        var both = self
        both.tokens = max(tokens, other.tokens)
        both.rows = max(rows, other.rows)
        both.context = max(context, other.context)
        both.inFeatures = max(inFeatures, other.inFeatures)
        both.outFeatures = max(outFeatures, other.outFeatures)
        both.heads = max(heads, other.heads)
        both.headSize = max(headSize, other.headSize)
        both.vocabulary = max(vocabulary, other.vocabulary)
        both.formats = formats.union(other.formats)
        both.experts = experts ?? other.experts
        return both
    }
}
