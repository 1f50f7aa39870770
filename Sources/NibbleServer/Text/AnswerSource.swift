import HTTPTypes
import Hummingbird
import NIOCore
import NibbleCore
import Synchronization

/// The answers to the prompts of one HTTP request, on their way from the service.
///
/// Choices are numbered prompt by prompt. They are cancelled when the client goes, when the server stops, and when nobody holds
/// the source any more.
final class AnswerSource: Sendable {
    let mailbox = Mailbox<CompletionEvent>()
    let choicesPerPrompt: Int
    let jobs: [CompletionJob]
    let started = ContinuousClock.now
    let channel: any Channel
    /// Where streamed answers are read and written.
    let executor: EventLoopExecutor
    private let times: Mutex<[ChoiceTimes]>
    private let handles = Mutex<[any CompletionHandle]>([])
    private let isCancelled = Mutex(false)
    private let watch = Mutex<(watcher: ConnectionWatcher, number: Int)?>(nil)
    private let openRequest = Mutex<OpenRequest?>(nil)

    private init(_ jobs: [CompletionJob], channel: any Channel) {
        self.jobs = jobs
        self.channel = channel
        executor = EventLoopExecutor(channel.eventLoop)
        choicesPerPrompt = jobs[0].choices
        times = Mutex(Array(repeating: ChoiceTimes(), count: jobs.count * jobs[0].choices))
    }

    /// When each choice began, and when its tokens came, whoever reads them when.
    var choiceTimes: [ChoiceTimes] { times.withLock { $0 } }

    private func receive(_ events: [CompletionEvent]) {
        times.withLock { times in
            let now = ContinuousClock.now
            for event in events {
                switch event {
                case .started(let choice, _): if times[choice].began == nil { times[choice].began = now }
                case .token(let choice, _, _):
                    if times[choice].firstToken == nil { times[choice].firstToken = now }
                    times[choice].lastToken = now
                case .finished: break
                }
            }
        }
        mailbox.post(events)
    }

    /// Hands prompts to the service.
    /// - Parameter jobs: at least one, all with the same number of choices.
    /// - Throws: ``ServiceRefusal``, ``APIError``: then none of them runs.
    static func start(
        _ jobs: [CompletionJob], _ service: any CompletionService, _ life: ServerLife, _ context: ServerContext
    ) async throws -> AnswerSource {
        let source = AnswerSource(jobs, channel: context.channel)
        let open = try life.begin { [weak source] error in source?.end(error) }
        source.openRequest.withLock { $0 = open }
        let watcher = try await context.watcher()
        for (index, job) in jobs.enumerated() {
            let first = index * source.choicesPerPrompt
            let handle = try service.submit(job) { [weak source] events in
                source?.receive(first == 0 ? events : events.map { $0.shifted(by: first) })
            }
            source.handles.withLock { $0.append(handle) }
        }
        let number = watcher.whenGone { [weak source] in source?.end(APIError.disconnected) }
        source.watch.withLock { $0 = (watcher, number) }
        return source
    }

    deinit { close() }

    var choices: Int { jobs.count * choicesPerPrompt }
    var promptTokens: Int { jobs.reduce(0) { $0 + $1.prompt.count } }

    /// Ends all choices and tells the reader why.
    func end(_ error: any Error) {
        mailbox.fail(error)
        cancel()
    }

    func cancel() {
        guard
            isCancelled.withLock({ cancelled in
                defer { cancelled = true }
                return !cancelled
            })
        else { return }
        for handle in handles.withLock({ $0 }) { handle.cancel() }
    }

    func stop(choice: Int) {
        let handle = handles.withLock { $0[choice / choicesPerPrompt] }
        handle.stop(choice: choice % choicesPerPrompt)
    }

    /// The answer is written, or will never be.
    func close() {
        let watch = watch.withLock { watch in
            defer { watch = nil }
            return watch
        }
        if let watch { watch.watcher.forget(watch.number) }
        openRequest.withLock { $0 = nil }
        cancel()
    }
}

/// Moments in the life of one choice.
struct ChoiceTimes: Sendable {
    /// It left the queue.
    var began: ContinuousClock.Instant?
    var firstToken: ContinuousClock.Instant?
    var lastToken: ContinuousClock.Instant?
}

extension CompletionEvent {
    func shifted(by count: Int) -> CompletionEvent {
        switch self {
        case .started(let choice, let cached): .started(choice: choice + count, cachedTokens: cached)
        case .token(let choice, let token, let scores): .token(choice: choice + count, token, scores)
        case .finished(let choice, let finish): .finished(choice: choice + count, finish)
        }
    }
}
