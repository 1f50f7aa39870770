import CNibbleVersion

/// What `nibble --version` prints.
enum Version {
    static let number = "0.1.0"

    static var text: String {
        let commit = String(cString: nibble_commit())
        return commit.isEmpty ? number : "\(number) (\(commit))"
    }
}
