/// How many tokens each client with open requests was served, so that the one served least goes first.
///
/// A client that arrives begins at the least of the others: it may not claim the time when it was away.
struct ClientService: Sendable {
    private struct Account: Sendable {
        var served: Int
        var openRequests: Int
    }

    private var accounts: [String: Account] = [:]

    mutating func begin(_ client: String) {
        let least = accounts.values.map(\.served).min() ?? 0
        accounts[client, default: Account(served: least, openRequests: 0)].openRequests += 1
    }

    mutating func end(_ client: String) {
        guard var account = accounts.removeValue(forKey: client) else { return }
        account.openRequests -= 1
        if account.openRequests > 0 { accounts[client] = account }
    }

    mutating func charge(_ client: String, _ tokens: Int) { accounts[client]?.served += tokens }

    func served(_ client: String) -> Int { accounts[client]?.served ?? 0 }
}
