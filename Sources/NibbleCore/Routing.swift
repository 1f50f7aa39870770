// Routing of sparse mixtures of experts. Letters: T tokens, X experts, k experts of a token.

/// How router logits become chosen experts and their weights.
///
/// Scores are computed from the logits of all experts. The k experts of largest score + ``choiceBias`` are chosen; their weights
/// are their scores without the bias, normalized and scaled.
package struct RouterRule: Sendable {
    package enum Scoring: Sendable, Hashable {
        /// Softmax over all experts. With ``RouterRule/normalizes`` it is the same as a softmax over the chosen ones.
        case softmax
        /// σ of each expert's logit (DeepSeek-V3, arXiv 2412.19437).
        case sigmoid
    }

    /// Experts in runs of equal length, of which only the best runs are eligible (DeepSeek-V2, arXiv 2405.04434).
    package struct Groups: Sendable, Hashable {
        package enum Score: Sendable, Hashable {
            /// The largest score of the group (DeepSeek-V2).
            case largest
            /// The sum of the group's two largest scores (DeepSeek-V3).
            case sumOfBestTwo
        }

        /// A divisor of X, at most ``limit``.
        package var count: Int
        /// How many groups are eligible: 1 ... count, with at least k experts in them.
        package var chosen: Int
        package var score: Score

        package static let limit = 32

        package init(count: Int, chosen: Int, score: Score) {
            self.count = count
            self.chosen = chosen
            self.score = score
        }
    }

    /// What keeps the divisor of normalized weights from zero.
    package enum Floor: Sendable, Hashable {
        /// sum + ε; 0 is the plain sum.
        case added(Float)
        /// max(sum, ε)
        case atLeast(Float)
    }

    package var scoring: Scoring
    /// float32 [X]: added to the scores for choosing, not for weighing.
    package var choiceBias: Tensor?
    package var groups: Groups?
    /// Whether the k weights are divided by their sum, and how the sum is kept from zero.
    package var normalizes: Bool
    package var floor: Floor
    /// A factor on all weights, applied last but for ``expertScale``.
    package var scale: Float
    /// float32 [X]: factors on the weights of single experts.
    package var expertScale: Tensor?

    package init(
        scoring: Scoring = .softmax, choiceBias: Tensor? = nil, groups: Groups? = nil, normalizes: Bool,
        floor: Floor = .added(0), scale: Float = 1, expertScale: Tensor? = nil
    ) {
        self.scoring = scoring
        self.choiceBias = choiceBias
        self.groups = groups
        self.normalizes = normalizes
        self.floor = floor
        self.scale = scale
        self.expertScale = expertScale
    }
}

/// Chooses k of X experts for each token.
package struct RouteCall: Sendable {
    /// float32 [T, X]
    package var logits: Tensor
    package var rule: RouterRule
    /// k, 1 ... X
    package var topK: Int

    package init(logits: Tensor, rule: RouterRule, topK: Int) {
        self.logits = logits
        self.rule = rule
        self.topK = topK
    }
}

extension RouteCall {
    /// Traps where sizes contradict each other.
    package func checkSizes() {
        let experts = logits.shape.last
        precondition(topK > 0 && topK <= experts, "top \(topK) of \(experts) experts")
        precondition(rule.choiceBias.map { $0.count == experts } ?? true, "a choice bias for other than \(experts) experts")
        precondition(rule.expertScale.map { $0.count == experts } ?? true, "scales for other than \(experts) experts")
        guard let groups = rule.groups else { return }
        precondition(
            (1...RouterRule.Groups.limit).contains(groups.count) && experts % groups.count == 0
                && (1...groups.count).contains(groups.chosen) && experts / groups.count * groups.chosen >= topK,
            "\(groups.chosen) of \(groups.count) groups of \(experts) experts, of which \(topK) are chosen")
    }
}
