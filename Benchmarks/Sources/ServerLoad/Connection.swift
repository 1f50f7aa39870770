import Foundation

/// A blocking connection to a server on this machine.
final class Connection {
    enum Failure: Error {
        case cannotConnect
        case closed
        case badAnswer
    }

    private let descriptor: Int32
    private var buffered: [UInt8] = []

    /// - Parameter receiveBuffer: bytes that the kernel keeps for the reader; small for those that read slowly.
    init(port: Int, receiveBuffer: Int? = nil) throws {
        descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        if var size = receiveBuffer.map(Int32.init) {
            setsockopt(descriptor, SOL_SOCKET, SO_RCVBUF, &size, socklen_t(MemoryLayout<Int32>.size))
        }
        var limit = timeval(tv_sec: 120, tv_usec: 0)
        setsockopt(descriptor, SOL_SOCKET, SO_RCVTIMEO, &limit, socklen_t(MemoryLayout<timeval>.size))
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = in_port_t(UInt16(port).bigEndian)
        address.sin_addr.s_addr = inet_addr("127.0.0.1")
        let code = withUnsafePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_in>.size))
            }
        }
        guard code == 0 else {
            close(descriptor)
            throw Failure.cannotConnect
        }
    }

    deinit { close(descriptor) }

    func send(_ method: String, _ path: String, _ body: String) throws {
        let text =
            "\(method) \(path) HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nConnection: close\r\n"
            + "Content-Length: \(body.utf8.count)\r\n\r\n\(body)"
        var bytes = Array(text.utf8)[...]
        while !bytes.isEmpty {
            let count = bytes.withUnsafeBytes { Glibc.send(descriptor, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL)) }
            guard count > 0 else { throw Failure.closed }
            bytes = bytes.dropFirst(count)
        }
    }

    /// Waits for more bytes.
    /// - Returns: whether there were any.
    private func fill(atMost count: Int) throws -> Bool {
        var piece = [UInt8](repeating: 0, count: count)
        let read = recv(descriptor, &piece, count, 0)
        guard read >= 0 else { throw Failure.closed }
        buffered += piece.prefix(read)
        return read > 0
    }

    /// The next line without its end; `nil` at the end of the answer.
    func line(atMost count: Int = 65536) throws -> String? {
        while true {
            if let end = buffered.firstIndex(of: UInt8(ascii: "\n")) {
                let line = String(decoding: buffered[..<end], as: UTF8.self)
                buffered.removeSubrange(...end)
                return line.hasSuffix("\r") ? String(line.dropLast()) : line
            }
            guard try fill(atMost: count) else { return nil }
        }
    }

    /// The status of an answer; its head is read.
    func status() throws -> Int {
        guard let first = try line(), let status = first.split(separator: " ").dropFirst().first.flatMap({ Int($0) }) else {
            throw Failure.badAnswer
        }
        while let line = try line(), !line.isEmpty {}
        return status
    }

    /// The body of an answer to GET.
    static func get(_ path: String, port: Int) throws -> String {
        let connection = try Connection(port: port)
        try connection.send("GET", path, "")
        _ = try connection.status()
        var lines: [String] = []
        while let line = try connection.line() { lines.append(line) }
        return lines.joined(separator: "\n")
    }
}
