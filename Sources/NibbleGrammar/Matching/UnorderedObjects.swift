/// Objects whose members may come in any order.
///
/// What may follow a set of members is a rule of its own, and there are as many as sets. So these rules are made when a text gets
/// there. Their numbers follow those of the other rules.
struct UnorderedObjects: Sendable {
    struct Member: Sendable {
        /// The key as it begins an object, and as it follows another member.
        var first: Expression
        var later: Expression
        var value: Int32
        var isRequired = false
        /// A member that the schema names comes at most once.
        var isNamed: Bool
    }

    struct Object: Sendable {
        var members: [Member]
        var minimumCount: Int
        var maximumCount: Int?
        /// The end of an object without members, and with some.
        var firstEnd: Expression
        var laterEnd: Expression

        /// Counts above this one are not told apart.
        fileprivate var highestCount: Int { max(minimumCount, maximumCount ?? 0, 1) }
    }

    /// Behind some members of an object.
    private struct Place: Hashable {
        var object: Int32
        var count: Int32
        /// One bit for each member.
        var seen: [UInt64]

        func contains(_ member: Int) -> Bool { seen[member >> 6] >> UInt64(member & 63) & 1 != 0 }
    }

    /// What a rule of this structure stands for: a place, or a member and all that follows it.
    private struct Meaning {
        var place: Int32
        var member: Int32 = -1
    }

    private var objects: [Object] = []
    /// The objects by the rule of their members in the schema's order, which says the same but for the order.
    private var ordered: [Int32: Int32] = [:]
    private var places: [Place] = []
    /// By place: the number of its rule, and of the rule of its first member once that is made.
    private var rules: [Int32] = []
    private var memberRules: [Int32] = []
    private var placeNumbers: [Place: Int32] = [:]
    private var meanings: [Meaning] = []
    /// The number of the first rule.
    private var base: Int32 = 0

    var isEmpty: Bool { objects.isEmpty }
    var byteCount: Int { meanings.count * 8 + places.count * 120 }

    mutating func add(_ object: Object, for rule: Int32) {
        ordered[rule] = Int32(objects.count)
        objects.append(object)
    }

    /// Begins to make rules, all other rules being known.
    ///
    /// - Parameter isAlive: whether a member can be part of a text; the others are forgotten.
    mutating func close(ruleCount: Int, isAlive: (Member) -> Bool) {
        base = Int32(ruleCount)
        for index in objects.indices { objects[index].members.removeAll { !isAlive($0) } }
    }

    /// The alternatives of a rule that is one of these; `nil` for others.
    mutating func alternatives(_ rule: Int32) -> [[GrammarRules.Symbol]]? {
        if let object = ordered[rule] {
            let words = (objects[Int(object)].members.count + 63) / 64
            return alternatives(at: number(Place(object: object, count: 0, seen: Array(repeating: 0, count: words))))
        }
        guard rule >= base, !objects.isEmpty else { return nil }
        let meaning = meanings[Int(rule - base)]
        guard meaning.member >= 0 else { return alternatives(at: meaning.place) }
        let place = places[Int(meaning.place)]
        let next = rules[Int(number(adding(Int(meaning.member), to: place)))]
        return [[.rule(objects[Int(place.object)].members[Int(meaning.member)].value), .rule(next)]]
    }

    private mutating func alternatives(at number: Int32) -> [[GrammarRules.Symbol]] {
        let place = places[Int(number)]
        let object = objects[Int(place.object)]
        let (count, isFirst) = (Int(place.count), place.count == 0)
        let open = object.members.indices.filter { !place.contains($0) }
        let missing = open.count { object.members[$0].isRequired }
        var result: [[GrammarRules.Symbol]] = []
        if missing == 0, count >= object.minimumCount { result.append([.lexeme(isFirst ? object.firstEnd : object.laterEnd)]) }
        guard object.maximumCount.map({ count < $0 }) ?? true else { return result }
        let hasUnnamed = object.members.contains { !$0.isNamed }
        guard hasUnnamed || count + open.count >= object.minimumCount else { return result }
        if memberRules[Int(number)] < 0 {
            memberRules[Int(number)] = base + Int32(meanings.count)
            for member in object.members.indices { meanings.append(Meaning(place: number, member: Int32(member))) }
        }
        for index in open {
            let member = object.members[index]
            // Those that must come need room.
            let stillMissing = missing - (member.isRequired ? 1 : 0)
            if let most = object.maximumCount, count + 1 + stillMissing > most { continue }
            result.append([.lexeme(isFirst ? member.first : member.later), .rule(memberRules[Int(number)] + Int32(index))])
        }
        return result
    }

    private func adding(_ member: Int, to place: Place) -> Place {
        let object = objects[Int(place.object)]
        var place = place
        if object.members[member].isNamed { place.seen[member >> 6] |= 1 << UInt64(member & 63) }
        place.count = min(place.count + 1, Int32(object.highestCount))
        return place
    }

    private mutating func number(_ place: Place) -> Int32 {
        if let known = placeNumbers[place] { return known }
        let number = Int32(places.count)
        placeNumbers[place] = number
        places.append(place)
        rules.append(base + Int32(meanings.count))
        memberRules.append(-1)
        meanings.append(Meaning(place: number))
        return number
    }
}
