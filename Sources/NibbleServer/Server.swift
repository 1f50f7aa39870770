import Hummingbird
import HummingbirdCore
package import Logging
import NIOCore
import ServiceLifecycle
package import UnixSignals

/// An HTTP server that answers with one model, in the forms that clients of OpenAI, Anthropic and Ollama read.
package struct Server: Sendable {
    private let core: ServerCore
    private let logger: Logger

    package init(
        _ configuration: ServerConfiguration, model: ServedModel, service: any CompletionService,
        logger: Logger = Logger(label: "nibble.server") { _ in SwiftLogNoOpLogHandler() }
    ) {
        core = ServerCore(configuration, model, service, ServerLife())
        self.logger = logger
    }

    /// Serves until a signal comes, or until the task is cancelled.
    ///
    /// - Parameter onListening: called once with the port.
    /// - Throws: errors of the socket; ``ServerFailure`` if the engine fails.
    package func run(
        signals: [UnixSignal] = [.sigterm, .sigint], onListening: @escaping @Sendable (_ port: Int) async -> Void
    ) async throws {
        let configuration = core.configuration
        let life = core.life
        let table = ConnectionTable(limit: configuration.maxConnections, report: configuration.report)
        let application = Application(
            responder: ServerResponder(core),
            server: .http1(
                configuration: .init(
                    additionalChannelHandlers: [
                        ConnectionWatcher(),
                        ConnectionLimits(
                            readTime: configuration.readTimeout, writeTime: configuration.writeTimeout, table: table),
                    ],
                    idleTimeout: .seconds(75),
                    httpDecoderConfiguration: .init(
                        maxHeaderFieldSize: 16 << 10, maxHeaderListSize: 32 << 10, maxHeaderFieldCount: 100))),
            configuration: ApplicationConfiguration(
                address: .hostname(configuration.host, port: configuration.port), serverName: "nibble", backlog: 1024),
            onServerRunning: { channel in
                let handler = AcceptGuard(table, report: configuration.report)
                try? await channel.pipeline.addHandler(handler, position: .first).get()
                life.enter(.ready)
                await onListening(channel.localAddress?.port ?? configuration.port)
            },
            eventLoopGroupProvider: .shared(EventLoopExecutor.loops), logger: logger)
        // Services stop in the reverse order: the socket stays open while requests drain.
        let group = ServiceGroup(
            configuration: .init(
                services: [
                    .init(service: application),
                    .init(service: EngineMonitor(service: core.service)),
                    .init(service: Draining(core: core)),
                ], gracefulShutdownSignals: signals, logger: logger))
        try await group.run()
    }
}

/// Why a server ended by itself.
package struct ServerFailure: Error, CustomStringConvertible {
    package let reason: String
    package var description: String { "the engine has failed: \(reason)" }
}

/// Ends the server when the engine is dead, so that whoever watches over it starts another.
private struct EngineMonitor: Service {
    let service: any CompletionService

    func run() async throws {
        try await cancelWhenGracefulShutdown {
            while !Task.isCancelled {
                if case .failed(let reason) = service.health() {
                    // Requests get their errors first.
                    try await Task.sleep(for: .seconds(1))
                    throw ServerFailure(reason: reason)
                }
                do { try await Task.sleep(for: .milliseconds(500)) } catch { return }
            }
        }
    }
}

/// Lets requests end after the first signal; new ones are refused meanwhile. A second signal ends them at once.
private struct Draining: Service {
    let core: ServerCore

    func run() async throws {
        try? await gracefulShutdown()
        core.life.enter(.draining)
        let deadline = ContinuousClock.now + .seconds(core.configuration.shutdownTimeout)
        await withTaskGroup { group in
            group.addTask {
                while core.life.openRequests > 0, ContinuousClock.now < deadline, !Task.isCancelled {
                    try? await Task.sleep(for: .milliseconds(20))
                }
            }
            group.addTask {
                for await _ in await UnixSignalsSequence(trapping: .sigterm, .sigint) { return }
            }
            await group.next()
            group.cancelAll()
        }
        core.life.endAll(APIError.stopping)
        // Streams write their last event.
        for _ in 0..<50 where core.life.openRequests > 0 { try? await Task.sleep(for: .milliseconds(20)) }
        core.life.enter(.stopped)
        await core.service.stop()
    }
}
