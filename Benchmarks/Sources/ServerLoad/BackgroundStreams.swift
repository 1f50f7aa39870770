import Foundation
import Synchronization

/// Streams that run beside what is measured, and the gaps between their tokens.
final class BackgroundStreams: Sendable {
    private let gapsByStream: Mutex<[[Double]]>
    private let started = Atomic<Int>(0)
    private let isStopped = Atomic<Bool>(false)
    private let group = DispatchGroup()

    init(_ count: Int, _ settings: Settings) {
        gapsByStream = Mutex(Array(repeating: [], count: count))
        for index in 0..<count {
            group.enter()
            Thread.detachNewThread {
                try? self.read(index, settings)
                self.group.leave()
            }
        }
    }

    private func read(_ index: Int, _ settings: Settings) throws {
        let prompt = Prompt(1_000_000 + index, words: settings.promptWords, maxTokens: settings.maxTokens)
        let stream = try CompletionStream(prompt, port: settings.port)
        var last: ContinuousClock.Instant?
        while !isStopped.load(ordering: .relaxed), try stream.nextPiece() {
            let now = ContinuousClock.now
            if let last {
                gapsByStream.withLock { $0[index].append((now - last) / .seconds(1)) }
            } else {
                started.add(1, ordering: .relaxed)
            }
            last = now
        }
    }

    /// Returns when all have their first token.
    func waitForStart() { while started.load(ordering: .relaxed) < gapsByStream.withLock({ $0.count }) { usleep(10_000) } }

    /// The gaps since the last call, of all streams.
    func takeGaps() -> [Double] {
        gapsByStream.withLock { gaps in
            defer { gaps = gaps.map { _ in [] } }
            return gaps.flatMap { $0 }
        }
    }

    func stop() {
        isStopped.store(true, ordering: .relaxed)
        group.wait()
    }
}
