import Foundation
import NibbleCore

/// What the server says about one file.
struct RemoteFile: Sendable {
    let path: String
    /// Without quotes and `W/`. Only a text that is a hash says anything about the content.
    let etag: String
    let byteCount: Int
    /// The name of the content in the cache. huggingface_hub names it by the ETag. An ETag that is not a hash may be the
    /// same for two files, or may not be a file name.
    let blob: String

    init(path: String, etag: String, byteCount: Int, commit: String) {
        self.path = path
        self.etag = etag
        self.byteCount = byteCount
        let isHash = ContentHash(etag: etag, byteCount: byteCount) != nil
        blob = isHash ? etag : ContentHash.digest(of: "\(commit)\n\(path)\n\(etag)\n\(byteCount)")
    }
}

extension HubSession {
    /// The address of a file, relative to the endpoint.
    static func resolvePath(_ path: String, _ snapshot: HubSnapshot) -> String {
        "/\(snapshot.repository)/resolve/\(snapshot.commit)/\(HubName.percentEncodedPath(path))"
    }

    /// Asks for a file's length and hash.
    func metadata(_ path: String, _ snapshot: HubSnapshot, _ transport: HubTransport) async throws -> RemoteFile {
        try await transport.answer(head: true, Self.resolvePath(path, snapshot), redirects: .withinHub) { answer in
            guard answer.isSuccess || answer.location != nil else {
                throw error(answer, transport, snapshot.repository, snapshot.revision, file: path)
            }
            func unexpected(_ expected: String, _ found: String?) -> HubError {
                .unexpectedAnswer(url: answer.address, expected: expected, found: found.map { transport.shown($0) } ?? "none")
            }
            guard let commit = answer.header("X-Repo-Commit"), commit == snapshot.commit else {
                throw unexpected("X-Repo-Commit \(snapshot.commit)", answer.header("X-Repo-Commit"))
            }
            let etag = (answer.header("X-Linked-Etag") ?? answer.header("ETag")).map(Self.normalized)
            guard let etag else { throw unexpected("an ETag", nil) }
            let length = answer.header("X-Linked-Size") ?? (answer.location == nil ? answer.header("Content-Length") : nil)
            guard let byteCount = length.flatMap({ Int($0) }), byteCount >= 0 else {
                throw unexpected("a Content-Length", length)
            }
            return RemoteFile(path: path, etag: etag, byteCount: byteCount, commit: snapshot.commit)
        }
    }

    private static func normalized(_ etag: String) -> String {
        let text = etag.trimmingCharacters(in: .whitespaces)
        return (text.hasPrefix("W/") ? text.dropFirst(2) : text[...]).trimmingCharacters(in: ["\""])
    }

    /// The error that an unsuccessful answer stands for.
    /// - Parameter file: `nil` where the repository itself was asked for.
    func error(
        _ answer: HubTransport.Answer, _ transport: HubTransport, _ repository: HubRepository, _ revision: String, file: String?
    ) -> HubError {
        let endpoint = configuration.endpoint.publicAddress
        let sentToken = configuration.token != nil
        let message = transport.shown(answer.header("X-Error-Message") ?? "")
        switch (answer.header("X-Error-Code") ?? "", answer.status) {
        case ("RevisionNotFound", _): return .revisionNotFound(repository, revision: revision)
        case ("EntryNotFound", _): return .fileNotFound(file ?? "", repository, revision: revision)
        case ("GatedRepo", _): return .gated(repository, endpoint: endpoint, sentToken: sentToken)
        case ("RepoNotFound", _): return .repositoryNotFound(repository, endpoint: endpoint, sentToken: sentToken)
        case (_, 401) where sentToken && message.lowercased().contains("invalid"):
            return .tokenRefused(repository, endpoint: endpoint)
        case (_, 401): return .repositoryNotFound(repository, endpoint: endpoint, sentToken: sentToken)
        case (_, 403): return .forbidden(repository, message: message)
        case (_, 404):
            if let file { return .fileNotFound(file, repository, revision: revision) }
            return .repositoryNotFound(repository, endpoint: endpoint, sentToken: sentToken)
        default: return .refused(url: answer.address, status: answer.status, message: message)
        }
    }
}

extension HubCache {
    /// Bytes of `file` that are not on the disk yet.
    func missingByteCount(_ file: RemoteFile) -> Int {
        if holdsBlob(file.blob) { return 0 }
        let there = (try? partialBlob(file.blob).resourceValues(forKeys: [.fileSizeKey]))?.fileSize ?? 0
        return max(file.byteCount - there, 0)
    }
}
