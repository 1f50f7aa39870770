import Foundation
import NibbleServing
import Testing

/// Random events against a model of the cache. `NIBBLE_SCHEDULER_EVENTS` sets how many events each seed gets.
@Suite struct SchedulerRandomTests {
    static let events = ProcessInfo.processInfo.environment["NIBBLE_SCHEDULER_EVENTS"].flatMap { Int($0) } ?? 10_000

    @Test("no block leaks, no request is lost, every row reads its own tokens", arguments: 0..<20)
    func randomEvents(seed: Int) {
        var counts = SchedulerWorld.Counts()
        // Several worlds of each seed: sizes of pools and chunks differ between worlds.
        for part in 0..<10 where Self.events > 0 {
            var world = SchedulerWorld(seed: UInt64(seed * 10 + part))
            for event in 0..<Self.events / 10 {
                world.advance()
                if event % 500 == 499 { world.finishAll() }
                if world.fault != nil { break }
            }
            world.finishAll()
            #expect(world.fault == nil, "world \(seed * 10 + part)")
            counts.preempted += world.counts.preempted
            counts.cachedTokens += world.counts.cachedTokens
            counts.forks += world.counts.forks
            counts.refused += world.counts.refused
            counts.finished += world.counts.finished
        }
        // The events must come to everything they are meant to try.
        #expect(counts.preempted > 0 && counts.cachedTokens > 0 && counts.forks > 0 && counts.refused > 0 && counts.finished > 0)
    }
}
