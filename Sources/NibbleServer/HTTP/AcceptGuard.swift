import Foundation
import NIOCore
import NibbleCore
import Synchronization

/// Lets a listening socket rest when the process has no descriptors left: the connection that it cannot take would wake it for ever.
final class AcceptGuard: ChannelInboundHandler, Sendable {
    typealias InboundIn = any Channel

    private let table: ConnectionTable
    private let report: @Sendable (String) -> Void
    private let hasReported = Atomic(false)

    init(_ table: ConnectionTable, report: @escaping @Sendable (String) -> Void) {
        self.table = table
        self.report = report
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        guard let error = error as? IOError, [EMFILE, ENFILE, ENOBUFS, ENOMEM].contains(error.errnoCode) else {
            return context.fireErrorCaught(error)
        }
        if !hasReported.exchange(true, ordering: .relaxed) {
            report("warning: a connection cannot be taken: \(String(cString: strerror(error.errnoCode)))")
        }
        table.close(8)
        let channel = context.channel
        channel.setOption(.autoRead, value: false).whenSuccess {
            channel.eventLoop.scheduleTask(in: .milliseconds(100)) { channel.setOption(.autoRead, value: true) }
        }
    }
}
