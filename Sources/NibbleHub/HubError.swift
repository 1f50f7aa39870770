import NibbleCore

/// Why a model cannot be loaded from the Hub or its cache. Every text says what to do next. None contains a token or a
/// password.
public enum HubError: Error, Sendable, Equatable {
    /// - Parameter sentToken: whether a token went with the request.
    case repositoryNotFound(HubRepository, endpoint: String, sentToken: Bool)
    /// The repository has no such branch, tag or commit.
    case revisionNotFound(HubRepository, revision: String)
    /// The repository does not hold the file.
    case fileNotFound(String, HubRepository, revision: String)
    /// The owner grants access.
    case gated(HubRepository, endpoint: String, sentToken: Bool)
    /// The server does not accept the access token.
    case tokenRefused(HubRepository, endpoint: String)
    /// The server forbids access.
    case forbidden(HubRepository, message: String)
    /// The server's address is not one of http or https.
    case invalidEndpoint(String)
    /// The access token holds characters that no token has. It is not repeated.
    case invalidToken
    /// The proxy speaks another protocol than HTTP: `socks5`, `https` …
    case unsupportedProxy(scheme: String)
    /// The proxy variable cannot be understood. It is not repeated, because it may hold a password.
    case invalidProxy
    /// The text can be no revision.
    case invalidRevision(String)

    /// The cache does not hold it, and offline mode is on.
    case offline(HubRepository, revision: String, cache: String)
    /// The cache does not hold it, and the server does not answer.
    case unreachable(HubRepository, endpoint: String, reason: String)
    /// The cache holds only a part of it.
    case notCached(file: String, HubRepository, revision: String, reason: String)

    /// The server's answer is not one that the Hub gives.
    case unexpectedAnswer(url: String, expected: String, found: String)
    /// An unexpected status, after all retries.
    case refused(url: String, status: Int, message: String)
    /// A download that kept breaking off.
    case interrupted(file: String, received: Int, expected: Int, reason: String)
    /// The download has another length than announced.
    case wrongLength(file: String, expected: Int, found: Int)
    /// The content differs from what the server announced.
    case wrongContent(file: String, expected: String, found: String)
    /// A file name would leave its folder.
    case unsafeName(String, HubRepository)

    /// The disk is too full; sizes in bytes.
    case noSpace(folder: String, needed: Int, free: Int)
    /// A file of the cache cannot be read or written.
    case cacheFailure(path: String, reason: String)
}

extension HubError: CustomStringConvertible {
    /// The error as a sentence for the user.
    public var description: String {
        switch self {
        case .repositoryNotFound(let repository, let endpoint, let sentToken):
            "\(repository) is neither a folder here nor a model on \(endpoint) that can be read: check the spelling; "
                + (sentToken
                    ? "if it is private, the token that was sent may not read it"
                    : "a private model needs an access token in HF_TOKEN")
        case .revisionNotFound(let repository, let revision):
            "\(repository) has no revision \"\(revision.printable())\": give a branch, a tag or a commit of it, or none for \"main\""
        case .fileNotFound(let file, let repository, let revision):
            "\(repository) holds no file \(file.printable()) at revision \(revision)"
        case .gated(let repository, let endpoint, let sentToken):
            "access to \(repository) is granted by its owner: ask for it at \(endpoint)/\(repository), then "
                + (sentToken
                    ? "try again with a token of that account (the one that was sent is not enough)"
                    : "put an access token in HF_TOKEN")
        case .tokenRefused(let repository, let endpoint):
            "\(endpoint) refuses the access token sent for \(repository): check HF_TOKEN and the token file"
        case .forbidden(let repository, let message):
            "access to \(repository) is forbidden" + (message.isEmpty ? "" : ": \(message)")
        case .invalidEndpoint(let endpoint):
            "HF_ENDPOINT should be an http or https address, found \"\(endpoint.printable())\""
        case .invalidToken:
            "the access token (HF_TOKEN or the token file) contains a space, a line break or another character that no token has"
        case .unsupportedProxy(let scheme):
            "the proxy variable names a \(scheme) proxy, which is not supported: give an HTTP proxy (http://HOST:PORT), or except "
                + "the server with no_proxy"
        case .invalidProxy:
            "the proxy variable should be of the form http://USER:PASSWORD@HOST:PORT, of which only HOST is required"
        case .invalidRevision(let revision):
            "\"\(revision.printable())\" cannot be a revision: give a branch, a tag or a commit"
        case .offline(let repository, let revision, let cache):
            "\(repository) (revision \(revision)) is neither a folder here nor in the cache \(cache), and HF_HUB_OFFLINE keeps the network off: "
                + "unset it, or set HF_HOME to a cache that holds the model"
        case .unreachable(let repository, let endpoint, let reason):
            "\(repository) is neither a folder here nor in the cache, and \(endpoint) cannot be reached (\(reason)): check the spelling of the "
                + "folder, or the network and HF_ENDPOINT"
        case .notCached(let file, let repository, let revision, let reason):
            "the cache holds only a part of \(repository) (revision \(revision)): \(file.printable()) is missing, and \(reason)"
        case .unexpectedAnswer(let url, let expected, let found):
            "\(url) does not answer as a Hub does: expected \(expected), found \(found); check HF_ENDPOINT"
        case .refused(let url, let status, let message):
            "\(url) answers \(status)" + (message.isEmpty ? "" : " (\(message))")
                + (status == 429 ? ": too many requests; try again later, or set HF_TOKEN" : "")
        case .interrupted(let file, let received, let expected, let reason):
            "the download of \(file.printable()) broke off at \(received) of \(expected) bytes (\(reason)); run the command again to continue it"
        case .wrongLength(let file, let expected, let found):
            "\(file.printable()): the server announced \(expected) bytes and sent \(found); nothing of it was kept"
        case .wrongContent(let file, let expected, let found):
            "\(file.printable()): the content's hash is \(found), the server announced \(expected); nothing of it was kept"
        case .unsafeName(let name, let repository):
            "\(repository) names the file \"\(name.printable())\", which is not a plain path inside its folder"
        case .noSpace(let folder, let needed, let free):
            "not enough room in \(folder.printablePath): \(needed) bytes are needed, \(free) are free; HF_HOME may name another disk"
        case .cacheFailure(let path, let reason):
            "\(path.printablePath): \(reason)"
        }
    }
}
