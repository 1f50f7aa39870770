internal import CNibbleCPU
package import NibbleCore

extension CPUBackend {
    package func route(_ call: RouteCall, ids: Tensor, weights: Tensor) throws {
        call.checkSizes()
        let (experts, rule) = (call.logits.shape.last, call.rule)
        let tokens = call.logits.count / experts
        precondition(
            min(ids.count, weights.count) >= tokens * call.topK, "routes of \(tokens) tokens into \(ids) and \(weights)")
        var arguments = nibble_route_arguments()
        arguments.logits = call.logits.floats
        arguments.choice_bias = rule.choiceBias?.floats
        arguments.expert_scale = rule.expertScale?.floats
        arguments.ids = ids.mutableIntegers
        arguments.weights = weights.mutableFloats
        (arguments.X, arguments.k) = (experts, call.topK)
        arguments.scoring = Int32(rule.scoring == .sigmoid ? nibble_score_sigmoid : nibble_score_softmax)
        if let groups = rule.groups {
            (arguments.groups, arguments.chosen_groups) = (groups.count, groups.chosen)
            arguments.group_score = Int32(
                groups.score == .sumOfBestTwo ? nibble_group_best_two : nibble_group_largest)
        }
        arguments.normalizes = rule.normalizes
        switch rule.floor {
        case .added(let epsilon): arguments.added = epsilon
        case .atLeast(let epsilon): arguments.least = epsilon
        }
        arguments.scale = rule.scale
        pool.run(
            count: tokens, grain: ThreadPool.grain(elementsPerItem: 16 * experts), arguments, nibble_route_task)
    }
}
