internal import CNibbleCUDA
package import NibbleCore

extension CUDABackend {
    package func route(_ call: RouteCall, ids: Tensor, weights: Tensor) throws {
        call.checkSizes()
        try perform {
            let (experts, rule) = (call.logits.shape.last, call.rule)
            let tokens = call.logits.count / experts
            var arguments = NibbleRouteArguments()
            arguments.logits = call.logits.pointer
            arguments.choiceBias = rule.choiceBias.pointer
            arguments.expertScale = rule.expertScale.pointer
            arguments.ids = ids.pointer
            arguments.weights = weights.pointer
            arguments.tokens = Int32(tokens)
            arguments.experts = Int32(experts)
            arguments.topK = Int32(call.topK)
            arguments.isSigmoid = rule.scoring == .sigmoid ? 1 : 0
            arguments.groups = Int32(rule.groups?.count ?? 0)
            arguments.chosenGroups = Int32(rule.groups?.chosen ?? 0)
            arguments.sumsBestTwo = rule.groups?.score == .sumOfBestTwo ? 1 : 0
            arguments.normalizes = rule.normalizes ? 1 : 0
            switch rule.floor {
            case .added(let epsilon): arguments.added = epsilon
            case .atLeast(let epsilon): arguments.least = epsilon
            }
            arguments.scale = rule.scale
            try launch(
                .route, grid: Grid(x: blocks(tokens, per: NIBBLE_ROUTE_WARPS)), block: 32 * Int(NIBBLE_ROUTE_WARPS), arguments)
        }
    }
}
