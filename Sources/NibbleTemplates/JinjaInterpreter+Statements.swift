extension JinjaInterpreter {
    func execute(_ statements: [JinjaStatement]) throws -> Flow {
        for statement in statements {
            line = statement.line
            let flow = try nested { try execute(statement) }
            guard flow == .normal else { return flow }
        }
        return .normal
    }

    private func execute(_ statement: JinjaStatement) throws -> Flow {
        switch statement.kind {
        case .text(let text): try write(text)
        case .output(let expressions): try output(expressions)
        case .loop(let loop): return try execute(loop)
        case .branch(let branches, let otherwise): return try executeBranch(branches, otherwise)
        case .set(let target, let expression): try assign(try evaluate(expression), to: target)
        case .setBlock(let target, let filters, let body): return try setBlock(target, filters, body)
        case .macro(let definition): scope.variables[definition.name] = makeMacro(definition)
        case .call(let call, let definition): try write(try text(of: try evaluate(call, caller: makeMacro(definition))))
        case .filter(let filters, let body): return try filterBlock(filters, body)
        case .with(let assignments, let body): return try executeWith(assignments, body)
        case .generation(let body): return try inScope(JinjaScope(parent: scope)) { try execute(body) }
        case .block(let body, let isScoped):
            return try inScope(JinjaScope(parent: isScoped ? scope : templateScope)) { try execute(body) }
        case .leaveLoop: return .leaveLoop
        case .nextIteration: return .nextIteration
        }
        return .normal
    }

    private func output(_ expressions: [JinjaExpression]) throws {
        for expression in expressions { try write(try text(of: try evaluate(expression))) }
    }

    private func executeBranch(
        _ branches: [(test: JinjaExpression, body: [JinjaStatement])], _ otherwise: [JinjaStatement]
    ) throws -> Flow {
        for (test, body) in branches where try evaluate(test).isTruthy { return try execute(body) }
        return try execute(otherwise)
    }

    // MARK: Loops

    private func execute(_ statement: JinjaStatement.Loop) throws -> Flow {
        try execute(statement, over: try evaluate(statement.sequence), depth0: 0)
    }

    private func execute(_ statement: JinjaStatement.Loop, over source: JinjaValue, depth0: Int) throws -> Flow {
        let loop = try makeLoop(statement, over: source, depth0: depth0)
        // The loop is as deep as the values reachable from its items; namespaces are counted separately.
        let value = JinjaValue.opaque(JinjaOpaque(.loop(loop.state), depth: loop.depth))
        let outer = scope
        var isEmpty = true
        while let item = try loop.state.next() {
            isEmpty = false
            try countIteration()
            let inner = JinjaScope(parent: outer)
            let flow = try inScope(inner) {
                inner.variables["loop"] = value
                try assign(item, to: statement.target)
                return try execute(statement.body)
            }
            if flow == .leaveLoop { return .normal }
        }
        // As in jinja2, `else` is not run after an iteration that ended in `continue`.
        return isEmpty ? try inScope(JinjaScope(parent: outer)) { try execute(statement.otherwise) } : .normal
    }

    private func makeLoop(
        _ statement: JinjaStatement.Loop, over source: JinjaValue, depth0: Int
    ) throws -> (state: JinjaLoop, depth: Int) {
        let items = try elements(of: source)
        let outer = scope
        var position = 0
        let condition = statement.condition
        let advance = { [unowned self] () throws -> JinjaValue? in
            while position < items.count {
                let item = items[position]
                position += 1
                guard let condition else { return item }
                let holds = try inScope(JinjaScope(parent: outer)) {
                    try assign(item, to: statement.target)
                    return try evaluate(condition).isTruthy
                }
                if holds { return item }
            }
            return nil
        }
        let depth = max(source.depth, JinjaArray(items).depth)
        let recursion = { [unowned self] (items: JinjaValue) throws -> JinjaValue in
            let (text, _) = try captured {
                try inScope(outer) { try nested { try execute(statement, over: items, depth0: depth0 + 1) } }
            }
            return .string(text)
        }
        let loop = JinjaLoop(
            depth0: depth0, length: condition == nil ? items.count : nil, advance: advance,
            recursion: statement.isRecursive ? recursion : nil)
        guard depth < limits.valueDepth else {
            throw JinjaError(.limit("nested lists and dictionaries", maximum: limits.valueDepth))
        }
        return (loop, depth)
    }

    // MARK: Assignments

    func assign(_ value: JinjaValue, to target: JinjaTarget) throws {
        switch target {
        case .name(let name): scope.variables[name] = value
        case .attribute(let name, let attribute):
            guard case .opaque(let namespace)? = scope.value(of: name), case .namespace = namespace.payload else {
                throw JinjaError(
                    .type(
                        expected: "a namespace to assign '\(attribute)' in", found: scope.value(of: name)?.typeName ?? "undefined"
                    ))
            }
            namespace.attributes[attribute] = value
        case .tuple(let targets):
            let items = try elements(of: value)
            guard items.count == targets.count else {
                throw JinjaError(.type(expected: "\(targets.count) values to unpack", found: "\(items.count)"))
            }
            for (item, target) in zip(items, targets) { try assign(item, to: target) }
        }
    }

    private func setBlock(_ target: JinjaTarget, _ filters: [JinjaFilterCall], _ body: [JinjaStatement]) throws -> Flow {
        let (text, flow) = try captured { try inScope(JinjaScope(parent: scope)) { try execute(body) } }
        guard flow == .normal else { return flow }
        try assign(try apply(filters, to: text), to: target)
        return .normal
    }

    private func filterBlock(_ filters: [JinjaFilterCall], _ body: [JinjaStatement]) throws -> Flow {
        let (text, flow) = try captured { try inScope(JinjaScope(parent: scope)) { try execute(body) } }
        guard flow == .normal else { return flow }
        try write(try self.text(of: try apply(filters, to: text)))
        return .normal
    }

    private func apply(_ filters: [JinjaFilterCall], to text: String) throws -> JinjaValue {
        var value = JinjaValue.string(text)
        for filter in filters {
            value = try applyFilter(filter.name, to: value, try evaluateArguments(filter.arguments))
        }
        return value
    }

    private func executeWith(_ assignments: [(JinjaTarget, JinjaExpression)], _ body: [JinjaStatement]) throws -> Flow {
        let values = try assignments.map { try evaluate($0.1) }
        return try inScope(JinjaScope(parent: scope)) {
            for (assignment, value) in zip(assignments, values) { try assign(value, to: assignment.0) }
            return try execute(body)
        }
    }
}
