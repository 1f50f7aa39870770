/// The members of a JSON object, in the order they were written.
///
/// Keys are compared byte for byte, not by Swift's canonical equivalence: a vocabulary may well hold both a composed and
/// a decomposed `é`. A look-up in a large object takes constant time.
package struct JSONObject: Sendable {
    package private(set) var members: [(key: String, value: JSONValue)] = []
    /// Present once a linear search would be slower.
    private var index: [ByteText: Int]?

    package init() {}

    /// A later member replaces an earlier one of the same key, in the earlier one's place.
    package init(_ members: some Sequence<(String, JSONValue)>) {
        for (key, value) in members { self[key] = value }
    }

    package var keys: [String] { members.map(\.key) }

    /// Reading a key that is not there, or setting one to `nil`, is no error.
    package subscript(key: String) -> JSONValue? {
        get { position(of: key).map { members[$0].value } }
        set {
            switch (position(of: key), newValue) {
            case (let position?, let value?): members[position].value = value
            case (let position?, nil): remove(at: position)
            case (nil, let value?): append(key, value)
            case (nil, nil): break
            }
        }
    }

    /// Adds a member unless the key is taken. Returns whether it was added.
    package mutating func insert(_ key: String, _ value: JSONValue) -> Bool {
        guard position(of: key) == nil else { return false }
        append(key, value)
        return true
    }

    private mutating func append(_ key: String, _ value: JSONValue) {
        members.append((key, value))
        if index != nil {
            index?[ByteText(key)] = members.count - 1
        } else if members.count > Self.linearLimit {
            rebuildIndex()
        }
    }

    private mutating func remove(at position: Int) {
        members.remove(at: position)
        if index != nil { rebuildIndex() }
    }

    private static let linearLimit = 8

    private func position(of key: String) -> Int? {
        if let index { return index[ByteText(key)] }
        let sought = ByteText(key)
        return members.firstIndex { ByteText($0.key) == sought }
    }

    private mutating func rebuildIndex() {
        var rebuilt = [ByteText: Int](minimumCapacity: members.count * 2)
        for (position, member) in members.enumerated() { rebuilt[ByteText(member.key)] = position }
        index = rebuilt
    }
}

extension JSONObject: RandomAccessCollection {
    package var startIndex: Int { 0 }
    package var endIndex: Int { members.count }
    package subscript(position: Int) -> (key: String, value: JSONValue) { members[position] }
}

extension JSONObject: Equatable {
    /// The order of members does not matter.
    package static func == (a: JSONObject, b: JSONObject) -> Bool {
        a.count == b.count && a.allSatisfy { b[$0.key] == $0.value }
    }
}

extension JSONObject: ExpressibleByDictionaryLiteral {
    package init(dictionaryLiteral elements: (String, JSONValue)...) { self.init(elements) }
}
