package import Foundation
import NibbleCore

/// A commit of a repository, and the folder of the cache where its files are.
package struct HubSnapshot: Sendable {
    package let repository: HubRepository
    /// The branch, tag or commit that was asked for.
    package let revision: String
    /// 40 hexadecimal digits.
    package let commit: String
    package let folder: URL
    /// The names of its files, sorted: those that the server lists or, without a server, those that the cache holds. A name
    /// that is not a plain path inside the folder is left out.
    package let files: [String]
    /// Why the answer comes from the cache; `nil` if it comes from the server.
    package let isCachedBecause: String?
}

/// Downloads from the Hub into its cache. Several processes may do this at the same time.
package struct HubSession: Sendable {
    let configuration: HubConfiguration
    /// `nil` in offline mode.
    let transport: HubTransport?

    /// Runs `body` with a session and closes its connections afterwards.
    /// - Throws: ``HubError/invalidEndpoint(_:)``, ``HubError/invalidToken``, ``HubError/unsupportedProxy(scheme:)``,
    ///   ``HubError/invalidProxy``, and what `body` throws.
    package static func run<Result>(
        _ configuration: HubConfiguration, _ body: (HubSession) async throws -> Result
    ) async throws -> Result {
        if configuration.isOffline { return try await body(HubSession(configuration: configuration, transport: nil)) }
        return try await body(HubSession(configuration: configuration, transport: try HubTransport(configuration)))
    }

    // MARK: Listing

    /// Resolves `revision` and lists its files. If the server cannot be reached or fails, the cache answers.
    /// - Throws: ``HubError``
    package func snapshot(of repository: HubRepository, revision: String = "main") async throws -> HubSnapshot {
        guard HubName.isPlainPath(revision) else { throw HubError.invalidRevision(revision) }
        guard let transport else {
            let reason = "HF_HUB_OFFLINE keeps the network off"
            if let snapshot = cached(repository, revision, because: reason) { return snapshot }
            throw HubError.offline(repository, revision: revision, cache: configuration.cacheFolder.path)
        }
        do {
            return try await listing(repository, revision, transport)
        } catch let error as HubTransport.Unreachable {
            let endpoint = configuration.endpoint.publicAddress
            let reason = "\(endpoint) cannot be reached (\(error.reason))"
            if let snapshot = cached(repository, revision, because: reason) { return snapshot }
            throw HubError.unreachable(repository, endpoint: endpoint, reason: error.reason)
        } catch HubError.refused(let url, let status, let message) where status >= 500 || status == 429 {
            let reason = "\(configuration.endpoint.publicAddress) answers \(status)"
            if let snapshot = cached(repository, revision, because: reason) { return snapshot }
            throw HubError.refused(url: url, status: status, message: message)
        }
    }

    private func cached(_ repository: HubRepository, _ revision: String, because reason: String) -> HubSnapshot? {
        let cache = HubCache(configuration, repository)
        guard let commit = cache.commit(of: revision), let files = cache.files(at: commit) else { return nil }
        return HubSnapshot(
            repository: repository, revision: revision, commit: commit, folder: cache.snapshot(commit), files: files,
            isCachedBecause: reason)
    }

    private func listing(_ repository: HubRepository, _ revision: String, _ transport: HubTransport) async throws -> HubSnapshot {
        let path = "/api/models/\(repository)/revision/\(HubName.percentEncoded(revision))"
        let url = configuration.endpoint.publicAddress + path
        let text = try await transport.answer(path, redirects: .all) { answer in
            guard answer.isSuccess else { throw error(answer, transport, repository, revision, file: nil) }
            return answer.text
        }
        guard let json = try? JSONValue.parse(text), let commit = json["sha"]?.string, HubName.isCommit(commit),
            let siblings = json["siblings"]?.array
        else {
            throw HubError.unexpectedAnswer(
                url: url, expected: "a JSON object with sha and siblings", found: transport.shown(text, limit: 60))
        }
        // A name that is not a plain path cannot be stored. It costs that file only.
        let files = siblings.compactMap { $0["rfilename"]?.string }.filter(HubName.isPlainPath)
        return HubSnapshot(
            repository: repository, revision: revision, commit: commit,
            folder: HubCache(configuration, repository).snapshot(commit), files: files.sorted(), isCachedBecause: nil)
    }

    // MARK: Fetching

    /// Downloads those of `files` that are not in the snapshot's folder yet.
    /// - Parameter progress: called from several threads, one at a time.
    /// - Throws: ``HubError``. Complete files stay in the cache; incomplete ones are continued the next time.
    package func fetch(
        _ files: [String], of snapshot: HubSnapshot, progress: (@Sendable (DownloadProgress) -> Void)? = nil
    ) async throws {
        if let name = files.first(where: { !HubName.isPlainPath($0) }) { throw HubError.unsafeName(name, snapshot.repository) }
        let cache = HubCache(configuration, snapshot.repository)
        let missing = files.filter { !cache.holds($0, at: snapshot.commit) }
        guard let first = missing.first else { return }
        guard let transport, snapshot.isCachedBecause == nil else {
            throw HubError.notCached(
                file: first, snapshot.repository, revision: snapshot.revision, reason: snapshot.isCachedBecause ?? "")
        }
        do {
            try cache.prepare()
            let limit = configuration.concurrentDownloads
            let remote = try await missing.concurrentMap(limit: limit) { try await metadata($0, snapshot, transport) }
            try cache.requireSpace(remote.reduce(0) { $0 + cache.missingByteCount($1) })
            let count = ProgressCount(totalBytes: remote.reduce(0) { $0 + $1.byteCount }, progress)
            _ = try await remote.concurrentMap(limit: limit) { try await download($0, snapshot, cache, transport, count) }
        } catch let error as HubTransport.Unreachable {
            throw HubError.unreachable(
                snapshot.repository, endpoint: configuration.endpoint.publicAddress, reason: error.reason)
        }
    }

    /// Records that `revision` stands for this commit, and that `absent` files do not exist in it.
    /// - Throws: ``HubError/cacheFailure(path:reason:)``
    package func publish(_ snapshot: HubSnapshot, absent: [String] = []) throws {
        guard snapshot.isCachedBecause == nil else { return }
        let cache = HubCache(configuration, snapshot.repository)
        for name in absent where HubName.isPlainPath(name) { try cache.markAbsent(name, at: snapshot.commit) }
        try cache.setCommit(snapshot.commit, of: snapshot.revision)
    }

    private func download(
        _ file: RemoteFile, _ snapshot: HubSnapshot, _ cache: HubCache, _ transport: HubTransport, _ count: ProgressCount
    ) async throws {
        let lock = try await FileLock.acquire(cache.lock(file.blob))
        defer { withExtendedLifetime(lock) {} }
        let isNew = !cache.holdsBlob(file.blob)
        if isNew {
            try await receive(file, snapshot, cache, transport, count)
        } else {
            count.add(file.byteCount)
        }
        try cache.link(file.blob, as: file.path, at: snapshot.commit, isNew: isNew)
    }

    private func receive(
        _ file: RemoteFile, _ snapshot: HubSnapshot, _ cache: HubCache, _ transport: HubTransport, _ count: ProgressCount
    ) async throws {
        let path = Self.resolvePath(file.path, snapshot)
        let partial = try PartialFile(cache.partialBlob(file.blob), for: file)
        let resumed = partial.byteCount
        try await transport.download(file, at: path, into: partial, count)
        do {
            try partial.finish()
        } catch HubError.wrongContent where resumed > 0 {
            // The part that an earlier run left may be the wrong one.
            count.add(-file.byteCount)
            let whole = try PartialFile(cache.partialBlob(file.blob), for: file)
            try await transport.download(file, at: path, into: whole, count)
            try whole.finish()
        }
        try cache.rename(cache.partialBlob(file.blob), to: cache.blob(file.blob))
    }
}
