/// How the server listens, whom it answers, and what it refuses.
package struct ServerConfiguration: Sendable {
    package var host = "127.0.0.1"
    /// 0: any free port.
    package var port = 8080
    /// Empty: everybody may ask.
    package var apiKeys: [String] = []
    /// The names by which clients ask for the model; the first is the one in answers.
    package var modelNames: [String]
    /// The origin whose pages may ask from a browser, `*` for any; `nil`: pages of this machine.
    package var corsOrigin: String?
    /// Bytes.
    package var bodyLimit = 2 << 20
    /// Seconds that requests get to end after SIGTERM.
    package var shutdownTimeout = 30.0
    /// Seconds that a request may take.
    package var requestTimeout: Double?
    /// Seconds of silence after which a stream says that it lives.
    package var pingInterval = 15.0
    /// Seconds without progress of a write after which a reader is taken for gone.
    package var writeTimeout = 60.0
    /// Seconds that each request has for its head, and again for its body.
    package var readTimeout = 60.0
    /// Connections that may be open. Further ones close those that wait longest for their clients, or get status 503 where all are
    /// being answered.
    package var maxConnections = 1024
    /// Takes what the one who runs the server should know.
    package var report: @Sendable (String) -> Void = { _ in }
    /// What the server says when it is asked for its version.
    package var version = "0.0.0"
    /// Before the names of all metrics.
    package var metricsPrefix = "nibble_"
    /// The text of a chat template to use instead of the model's own.
    package var chatTemplate: String?
    /// Lets requests say how urgent they are.
    package var allowsPriority = false
    /// Whether clients may load and unload adapters. They name folders of this machine.
    package var allowsAdapterUpdates = false

    package init(modelNames: [String]) {
        precondition(!modelNames.isEmpty)
        self.modelNames = modelNames
    }

    var modelName: String { modelNames[0] }
}
