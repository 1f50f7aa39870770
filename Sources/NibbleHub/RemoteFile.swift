import Foundation

/// What the server says about one file.
struct RemoteFile: Sendable {
    let path: String
    /// Without quotes and `W/`; fit to be a file's name.
    let etag: String
    let byteCount: Int
}

extension HubSession {
    /// The address of a file, from the endpoint on.
    static func resolvePath(_ path: String, _ snapshot: HubSnapshot) -> String {
        "/\(snapshot.repository)/resolve/\(snapshot.commit)/\(HubName.percentEncodedPath(path))"
    }

    /// Asks for a file's length and hash.
    func metadata(_ path: String, _ snapshot: HubSnapshot, _ transport: HubTransport) async throws -> RemoteFile {
        try await transport.answer(head: true, Self.resolvePath(path, snapshot), redirects: .withinHub) { answer in
            guard answer.isSuccess || answer.location != nil else {
                throw error(answer, snapshot.repository, snapshot.revision, file: path)
            }
            let url = answer.url.absoluteString
            guard let commit = answer.header("X-Repo-Commit"), commit == snapshot.commit else {
                throw HubError.unexpectedAnswer(
                    url: url, expected: "X-Repo-Commit \(snapshot.commit)", found: answer.header("X-Repo-Commit") ?? "none")
            }
            let tag = answer.header("X-Linked-Etag") ?? answer.header("ETag") ?? ""
            let etag = Self.normalized(tag)
            guard HubName.isFileName(etag) else {
                throw HubError.unexpectedAnswer(url: url, expected: "an ETag", found: tag.isEmpty ? "none" : tag)
            }
            let length = answer.header("X-Linked-Size") ?? (answer.location == nil ? answer.header("Content-Length") : nil)
            guard let byteCount = length.flatMap({ Int($0) }), byteCount >= 0 else {
                throw HubError.unexpectedAnswer(url: url, expected: "a Content-Length", found: length ?? "none")
            }
            return RemoteFile(path: path, etag: etag, byteCount: byteCount)
        }
    }

    private static func normalized(_ etag: String) -> String {
        let strong = etag.hasPrefix("W/") ? etag.dropFirst(2) : etag[...]
        return strong.filter { $0 != "\"" }
    }

    /// What an answer that is no success means.
    /// - Parameter file: `nil` where the repository itself was asked for.
    func error(_ answer: HubTransport.Answer, _ repository: HubRepository, _ revision: String, file: String?) -> HubError {
        let endpoint = configuration.endpoint
        let sentToken = configuration.token != nil
        let message = answer.header("X-Error-Message") ?? ""
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
        default: return .refused(url: answer.url.absoluteString, status: answer.status, message: message)
        }
    }
}

extension HubCache {
    /// Bytes of `file` that are not on the disk yet.
    func bytesToCome(_ file: RemoteFile) -> Int {
        if holdsBlob(file.etag) { return 0 }
        let there = (try? partialBlob(file.etag).resourceValues(forKeys: [.fileSizeKey]))?.fileSize ?? 0
        return max(file.byteCount - there, 0)
    }
}
