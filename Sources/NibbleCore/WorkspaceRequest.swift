/// The largest sizes a session will ask of a backend.
package struct WorkspaceRequest: Sendable {
    /// T
    package var tokens: Int
    /// R
    package var rows: Int
    /// Keys a row can hold.
    package var context: Int
    /// The widest K and the widest ΣN of any linear call.
    package var inFeatures: Int
    package var outFeatures: Int
    /// H and D of attention.
    package var heads: Int
    package var headSize: Int
    package var vocabulary: Int
    /// How the linear layers' weights are stored; empty: in any form.
    package var formats: Set<WeightFormat>
    /// How quantized products are computed.
    package var arithmetic: LinearArithmetic
    /// Mixtures only.
    package var experts: Experts?

    /// The largest mixture: X experts, k of them a token, width E, hidden width F.
    package struct Experts: Sendable, Equatable {
        package var count: Int
        package var topK: Int
        package var width: Int
        package var hidden: Int

        package init(count: Int, topK: Int, width: Int, hidden: Int) {
            self.count = count
            self.topK = topK
            self.width = width
            self.hidden = hidden
        }
    }

    package init(
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
    package func widened(_ other: WorkspaceRequest) -> WorkspaceRequest {
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
