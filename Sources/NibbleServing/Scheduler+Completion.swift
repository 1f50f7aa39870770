import NibbleModels

extension Scheduler {
    /// Takes the answers of the step that was planned last.
    ///
    /// - Parameters:
    ///   - chosen: one for each row of the plan that wanted a token, in its order. Rows whose requests have ended since are
    ///     ignored.
    ///   - seconds: how long the step took.
    package mutating func complete(_ chosen: [ChosenToken], seconds: Double) -> [SchedulerEvent] {
        precondition(chosen.count == step.count { $0.wantsToken }, "one answer for each row that wanted a token")
        var events: [SchedulerEvent] = []
        events.reserveCapacity(2 * chosen.count)
        var answers = chosen.makeIterator()
        var tokens = 0
        var lengths = 0
        pool.finishCopies()
        for row in step {
            let answer = row.wantsToken ? answers.next() : nil
            guard let index = running.firstIndex(where: { $0.slot == row.slot }) else { continue }
            pool.index(&running[index].cache, tokens: running[index].tokens)
            pool.releasePassed(&running[index].cache)
            lengths += running[index].cache.length
            tokens += row.tokenCount
            if running[index].pendingForks > 0, running[index].remaining == 0 { fork(row.id, &events) }
            if let answer { take(answer, at: index, &events) }
        }
        step.removeAll(keepingCapacity: true)
        time.observe(tokens: tokens, lengths: lengths, seconds: seconds)
        return events
    }

    private mutating func take(_ answer: ChosenToken, at index: Int, _ events: inout [SchedulerEvent]) {
        switch answer {
        case .failed(let reason): finishRunning(at: index, .failed(reason), &events)
        case .token(let token):
            running[index].tokens.append(token)
            waiting.charge(running[index].request.client, 1)
            events.append(.token(running[index].id, choice: running[index].choice, token))
            if let reason = reasonToEnd(at: index, token) { finishRunning(at: index, reason, &events) }
        }
    }

    private func reasonToEnd(at index: Int, _ token: Int32) -> ServingFinish? {
        if running[index].request.stopTokens.contains(token) { return .stopToken }
        let isFull = running[index].chosenCount == running[index].request.maxNewTokens
        return isFull || running[index].tokens.count == capacity ? .length : nil
    }
}
