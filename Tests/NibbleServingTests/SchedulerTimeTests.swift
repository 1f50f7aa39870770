import Foundation
import NibbleModels
import NibbleServing
import Testing

/// How long the scheduler thinks about a step. Prints; judges nothing.
@Suite(.enabled(if: ProcessInfo.processInfo.environment["NIBBLE_SCHEDULER_TIME"] != nil))
struct SchedulerTimeTests {
    static let caches: [[CacheTable]] = [
        [CacheTable(blockCount: 8000)], [CacheTable(blockCount: 8000), CacheTable(.window(1024), blockCount: 4000)],
    ]

    @Test("plan and complete, 64 rows that decode and 64 requests that wait", arguments: caches)
    func decoding(tables: [CacheTable]) throws {
        var limits = SchedulerLimits(slots: 64, context: 4096, chunkTokens: 2048)
        limits.queuedRequests = 1000
        var scheduler = Scheduler(limits: limits, pool: BlockPool(tables: tables, blockSize: 32), secondsPerToken: 1e-4)
        for number: Int32 in 0..<128 {
            let prompt = (0..<1500).map { ($0 * 31 + number * 77) % 1000 }
            _ = try scheduler.submit(ServingRequest(prompt: prompt, maxNewTokens: 2000))
        }
        var plan = StepPlan()
        var times: [Duration] = []
        while times.count < 1000 {
            let start = ContinuousClock.now
            _ = scheduler.plan(now: .zero, into: &plan)
            let planned = ContinuousClock.now
            let chosen = plan.rows.filter(\.wantsToken).map { ChosenToken.token(Int32($0.start % 1000)) }
            let answered = ContinuousClock.now
            _ = scheduler.complete(chosen, seconds: 0.01)
            guard plan.rows.count == 64, chosen.count == 64 else { continue }
            times.append(planned - start + (ContinuousClock.now - answered))
        }
        times.sort()
        print("plan and complete of 64 rows, \(tables.count) tables: median \(times[500]), p99 \(times[990]), most \(times[999])")
    }

    @Test("from a prompt's arrival to its first step, 1,024 of its 1,056 tokens known", arguments: caches)
    func knownPrefix(tables: [CacheTable]) throws {
        let limits = SchedulerLimits(slots: 16, context: 4096, chunkTokens: 512)
        var scheduler = Scheduler(limits: limits, pool: BlockPool(tables: tables, blockSize: 32), secondsPerToken: 1e-4)
        var plan = StepPlan()
        var times: [Duration] = []
        for number: Int32 in 0...200 {
            let prompt = (Int32(0)..<1056).map { index in index < 1024 ? index * 31 % 1000 : index + number }
            let start = ContinuousClock.now
            _ = try scheduler.submit(ServingRequest(prompt: prompt, maxNewTokens: 1))
            _ = scheduler.plan(now: .zero, into: &plan)
            let planned = ContinuousClock.now
            if number > 0 {
                #expect(plan.tokens.count == 32)
                times.append(planned - start)
            }
            while !scheduler.isIdle {
                let chosen = plan.rows.filter(\.wantsToken).map { _ in ChosenToken.token(1) }
                _ = scheduler.complete(chosen, seconds: 0.01)
                _ = scheduler.plan(now: .zero, into: &plan)
            }
        }
        times.sort()
        print("submit and plan, \(tables.count) tables: median \(times[100]), most \(times[199])")
    }
}
