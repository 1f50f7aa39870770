public import Foundation

/// Where models come from and where they are stored. ``standard`` reads the variables that huggingface_hub reads.
public struct HubConfiguration: Sendable {
    /// The cache, shared with other programs: `models--OWNER--NAME` folders lie in it.
    public var cacheFolder: URL
    /// The server, without a slash at the end.
    public var endpoint = HubConfiguration.publicEndpoint
    /// The access token. It is sent to ``endpoint`` and nowhere else.
    public var token: String?
    /// Use the cache only, without any network access.
    public var isOffline = false
    /// The time limit of a request for a file's length and hash.
    package var metadataTimeout: Duration = .seconds(10)
    /// How long a download may receive nothing.
    package var downloadTimeout: Duration = .seconds(10)
    /// If false, snapshots hold the files themselves instead of links to them.
    package var usesSymlinks = true
    package var showsProgress = true
    /// Files that are downloaded at the same time.
    public var concurrentDownloads = 8
    /// How often a request is repeated that fails without receiving a byte.
    package var retries = 5
    /// The wait before the first repetition. It doubles with each.
    package var retryDelay: Duration = .seconds(1)
    /// `http://user:password@host:port`, of which only the host is required.
    public var proxy: String?

    /// The address of huggingface.co.
    public static let publicEndpoint = "https://huggingface.co"

    /// huggingface.co with this cache, without a token.
    public init(cacheFolder: URL) { self.cacheFolder = cacheFolder }

    /// The configuration that this process's environment gives.
    public static var standard: HubConfiguration { HubConfiguration(environment: ProcessInfo.processInfo.environment) }

    /// - Parameter environment: variables by name. An empty value is the same as none.
    package init(environment: [String: String]) {
        let variables = HubVariables(environment)
        let home = variables.path("HF_HOME") ?? variables.path("XDG_CACHE_HOME").map { $0 + "/huggingface" }
        let base = home ?? variables.expanded("~/.cache/huggingface")
        let cache = variables.path("HF_HUB_CACHE") ?? variables.path("HUGGINGFACE_HUB_CACHE") ?? base + "/hub"
        self.init(cacheFolder: URL(filePath: cache))
        if let endpoint = variables["HF_ENDPOINT"] { self.endpoint = endpoint.trimmingSuffix("/") }
        if !variables.isTrue("HF_HUB_DISABLE_IMPLICIT_TOKEN") {
            token = variables.token(defaultFile: base + "/token")
        }
        isOffline = variables.isTrue("HF_HUB_OFFLINE") || variables.isTrue("TRANSFORMERS_OFFLINE")
        metadataTimeout = variables.seconds("HF_HUB_ETAG_TIMEOUT") ?? metadataTimeout
        downloadTimeout = variables.seconds("HF_HUB_DOWNLOAD_TIMEOUT") ?? downloadTimeout
        usesSymlinks = !variables.isTrue("HF_HUB_DISABLE_SYMLINKS")
        showsProgress = !variables.isTrue("HF_HUB_DISABLE_PROGRESS_BARS")
        proxy = variables.proxy(for: endpoint)
    }
}

/// Environment variables in the forms that huggingface_hub accepts.
private struct HubVariables {
    private let values: [String: String]

    init(_ values: [String: String]) { self.values = values }

    subscript(name: String) -> String? {
        guard let value = values[name], !value.isEmpty else { return nil }
        return value
    }

    func isTrue(_ name: String) -> Bool { ["1", "ON", "YES", "TRUE"].contains(self[name]?.uppercased()) }

    func path(_ name: String) -> String? { self[name].map(expanded) }

    func seconds(_ name: String) -> Duration? {
        guard let text = self[name], let seconds = Int(text), seconds > 0 else { return nil }
        return .seconds(seconds)
    }

    func token(defaultFile: String) -> String? {
        let given = self["HF_TOKEN"] ?? self["HUGGING_FACE_HUB_TOKEN"]
        let text = given ?? (try? String(contentsOfFile: path("HF_TOKEN_PATH") ?? defaultFile, encoding: .utf8))
        guard let token = text?.trimmingCharacters(in: .whitespacesAndNewlines), !token.isEmpty else { return nil }
        return token
    }

    /// The proxy variable that applies to `endpoint`. Loopback addresses are never reached through a proxy.
    func proxy(for endpoint: String) -> String? {
        guard let url = URL(string: endpoint), let scheme = url.scheme?.lowercased(), let host = url.host() else { return nil }
        let isLoopback = host == "localhost" || host.hasPrefix("127.") || host == "::1" || host == "[::1]"
        let exceptions = ProxyExceptions(self["no_proxy"] ?? self["NO_PROXY"] ?? "")
        let port = url.port ?? (scheme == "https" ? 443 : 80)
        guard !isLoopback, !exceptions.contains(host: host, port: port) else { return nil }
        return self["\(scheme)_proxy"] ?? self["\(scheme.uppercased())_PROXY"] ?? self["all_proxy"] ?? self["ALL_PROXY"]
    }

    /// `~` at the start, `$NAME` and `${NAME}` anywhere. Variables that are not set stay as they stand.
    func expanded(_ path: String) -> String {
        var path = path
        if path == "~" || path.hasPrefix("~/") {
            path = (self["HOME"] ?? NSHomeDirectory()) + path.dropFirst()
        }
        return path.replacing(#/\$(?:\{(?<braced>\w+)\}|(?<bare>\w+))/#) { match in
            let name = match.output.braced ?? match.output.bare ?? ""
            return values[String(name)] ?? String(match.output.0)
        }
    }
}

extension String {
    fileprivate func trimmingSuffix(_ suffix: Character) -> String {
        var text = self[...]
        while text.last == suffix { text.removeLast() }
        return String(text)
    }
}
