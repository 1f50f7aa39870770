internal import CNibbleCUDA
package import NibbleCore

extension CUDABackend {
    package func route(_ call: RouteCall, ids: Tensor, weights: Tensor) throws {
        call.checkSizes()
        try perform {
            let arguments = NibbleRouteArguments(call, ids: ids, weights: weights)
            let tokens = Int(arguments.tokens)
            try launch(
                .route, grid: Grid(x: blocks(tokens, per: NIBBLE_ROUTE_WARPS)), block: 32 * Int(NIBBLE_ROUTE_WARPS), arguments)
        }
    }

    package func route(
        _ input: Tensor, after norm: Norm?, scratch: Tensor, through router: LinearGroup, adapters: AdapterRows?,
        _ call: RouteCall, ids: Tensor, weights: Tensor
    ) throws {
        call.checkSizes()
        try perform {
            let layer = router.layers[0]
            guard let weight = fusedRouterWeight(router, input, scratch, adapters) else {
                try activations(input, after: norm, into: scratch)
                try linear(scratch, router, epilogue: LinearEpilogue(adapters: adapters), into: call.logits)
                return try route(call, ids: ids, weights: weights)
            }
            var arguments = NibbleRouterArguments()
            arguments.route = NibbleRouteArguments(call, ids: ids, weights: weights)
            arguments.input = input.pointer
            if input.dtype == .float32 { arguments.prologue = NibblePrologue(norm) }
            arguments.weight = weight.pointer
            arguments.bias = layer.bias.pointer
            arguments.prepared = scratch.pointer
            arguments.inFeatures = Int32(layer.inFeatures)
            let cluster = routerCluster(layer.outFeatures)
            try launch(
                .router, try element(scratch.dtype, for: "router"), grid: Grid(x: Int(arguments.route.tokens) * cluster),
                block: Int(NIBBLE_ROUTER_THREADS), shared: routerShared(layer), cluster: hasWarpgroups ? cluster : 0, arguments)
        }
    }

    /// The blocks that share a token's experts.
    private func routerCluster(_ experts: Int) -> Int { hasWarpgroups ? min(experts, Int(NIBBLE_ROUTER_MAX_CLUSTER)) : 1 }

    private func routerShared(_ layer: Linear) -> Int {
        let own = blocks(layer.outFeatures, per: routerCluster(layer.outFeatures))
        return Int(nibble_router_shared(Int64(own), Int64(layer.outFeatures), Int64(layer.inFeatures)))
    }

    /// The weight of a router that few blocks a token can hold; `nil` where products of their own are better.
    private func fusedRouterWeight(
        _ router: LinearGroup, _ input: Tensor, _ scratch: Tensor, _ adapters: AdapterRows?
    ) -> Tensor? {
        let layer = router.layers[0]
        guard !options.isBatchInvariant, router.layers.count == 1, case .dense(let weight) = layer.weight,
            weight.dtype == scratch.dtype,
            scratch.dtype == .float16 || scratch.dtype == .bfloat16, input.dtype == .float32,
            adapters == nil || layer.lowRank == nil, layer.inFeatures % 8 == 0,
            input.count / layer.inFeatures <= 64, routerShared(layer) <= sharedMemoryLimit
        else { return nil }
        return weight
    }
}

extension NibbleRouteArguments {
    fileprivate init(_ call: RouteCall, ids: Tensor, weights: Tensor) {
        let (experts, rule) = (call.logits.shape.last, call.rule)
        self.init()
        logits = call.logits.pointer
        choiceBias = rule.choiceBias.pointer
        expertScale = rule.expertScale.pointer
        self.ids = ids.pointer
        self.weights = weights.pointer
        tokens = Int32(call.logits.count / experts)
        self.experts = Int32(experts)
        topK = Int32(call.topK)
        isSigmoid = rule.scoring == .sigmoid ? 1 : 0
        groups = Int32(rule.groups?.count ?? 0)
        chosenGroups = Int32(rule.groups?.chosen ?? 0)
        sumsBestTwo = rule.groups?.score == .sumOfBestTwo ? 1 : 0
        normalizes = rule.normalizes ? 1 : 0
        switch rule.floor {
        case .added(let epsilon): added = epsilon
        case .atLeast(let epsilon): least = epsilon
        }
        scale = rule.scale
    }
}
