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
        var answers = chosen.makeIterator()
        var tokens = 0
        var lengths = 0
        for row in step {
            let answer = row.wantsToken ? answers.next() : nil
            guard let index = running.firstIndex(where: { $0.slot == row.slot }) else { continue }
            pool.index(&running[index].cache, tokens: running[index].tokens)
            lengths += running[index].cache.length
            tokens += row.tokenCount
            if running[index].pendingForks > 0, running[index].remaining == 0 { events += fork(row.id) }
            if let answer { events += take(answer, at: index) }
        }
        step.removeAll(keepingCapacity: true)
        time.observe(tokens: tokens, lengths: lengths, seconds: seconds)
        return events
    }

    private mutating func take(_ answer: ChosenToken, at index: Int) -> [SchedulerEvent] {
        switch answer {
        case .failed(let reason):
            return finishRunning(at: index, .failed(reason))
        case .token(let token):
            running[index].tokens.append(token)
            let sequence = running[index]
            service.charge(sequence.request.client, 1)
            let event = SchedulerEvent.token(sequence.id, choice: sequence.choice, token)
            return [event] + (reasonToEnd(sequence, token).map { finishRunning(at: index, $0) } ?? [])
        }
    }

    private func reasonToEnd(_ sequence: ServedSequence, _ token: Int32) -> ServingFinish? {
        if sequence.request.stopTokens.contains(token) { return .stopToken }
        if sequence.chosenCount == sequence.request.maxNewTokens || sequence.tokens.count == capacity { return .length }
        return nil
    }
}
