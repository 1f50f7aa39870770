/// Which expressions have a text: without this, a mask could allow tokens that lead nowhere.
struct ExpressionLiveness: Sendable {
    /// Only for expressions that may have none.
    private var known: [Expression: Bool] = [:]

    /// - Throws: ``GrammarError/tooComplex(what:limit:)`` if the pool's fuel runs out.
    mutating func isAlive(_ expression: Expression, _ pool: inout ExpressionPool) throws(GrammarError) -> Bool {
        guard expression != ExpressionPool.nothing else { return false }
        guard pool.mayBeDead[Int(expression)], !pool.nullable[Int(expression)] else { return true }
        if let answer = known[expression] { return answer }
        if pool.classes.isEmpty { return try isAliveBytewise(expression, &pool) }
        // Breadth first over derivatives, with the way to each.
        var origins: [Expression: Expression] = [expression: expression]
        var queue = [expression]
        var index = 0
        while index < queue.count {
            let current = queue[index]
            index += 1
            for number in pool.representatives.indices {
                let next = pool.derivative(current, class: number)
                guard next != ExpressionPool.nothing, origins[next] == nil else { continue }
                origins[next] = current
                if pool.nullable[Int(next)] || !pool.mayBeDead[Int(next)] || known[next] == true {
                    try pool.check()
                    markAlive(next, origins)
                    return true
                }
                if known[next] == nil { queue.append(next) }
            }
            pool.fuel.spend(pool.representatives.count)
            try pool.check()
        }
        for dead in queue { known[dead] = false }
        return false
    }

    /// All on the way to `end` have a text.
    private mutating func markAlive(_ end: Expression, _ origins: [Expression: Expression]) {
        var place = end
        while let before = origins[place] {
            known[place] = true
            if before == place { return }
            place = before
        }
    }

    /// While expressions are still being made, their classes of bytes are those of a copy.
    private mutating func isAliveBytewise(_ expression: Expression, _ pool: inout ExpressionPool) throws(GrammarError) -> Bool {
        var copy = pool
        copy.closeClasses()
        copy.fuel.spend(pool.count / 4)
        var liveness = ExpressionLiveness()
        let answer = try liveness.isAlive(expression, &copy)
        pool.fuel = copy.fuel
        known[expression] = answer
        return answer
    }
}
