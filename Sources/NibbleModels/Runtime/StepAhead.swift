import NibbleCore

/// What a device goes on with: for each slot of the last step, the row that follows if its sequence continues with the token
/// that was chosen. Such a step may have been enqueued before anybody asked for it.
struct StepAhead {
    /// One sequence's next row.
    struct Row: Equatable {
        var token: Int32
        var position: Int
        var counter: Int
    }

    /// By slot.
    private var rows: [Row?]
    /// The place of the slot's answer among those of the step that was enqueued.
    private var places: [Int]
    private(set) var isEnqueued = false
    /// Steps in a row that were foreseen, and how many there must be before one is enqueued early.
    private var streak = 0
    private var wantedStreak = 0

    /// After a step that nobody asked for: so many must be foreseen again. More than the tokens of a usual draft.
    private static let caution = 8

    init(slots: Int) {
        rows = Array(repeating: nil, count: slots)
        places = Array(repeating: 0, count: slots)
    }

    var isTrusted: Bool { streak >= wantedStreak }

    /// Whether a slot's next row is the one that was foreseen.
    func foresees(_ row: Row, slot: Int) -> Bool { rows[slot] == row }

    /// The place of a slot's answer in the step that was enqueued, if `row` was a part of it.
    func place(of row: Row, slot: Int) -> Int? { isEnqueued && rows[slot] == row ? places[slot] : nil }

    /// Slots whose rows were enqueued, with the tokens' places.
    var enqueued: [(slot: Int, place: Int)] {
        isEnqueued ? rows.indices.filter { rows[$0] != nil }.map { ($0, places[$0]) } : []
    }

    mutating func forget(slot: Int) { rows[slot] = nil }

    /// - Parameter wasFutile: whether a step was enqueued that nobody asked for.
    mutating func removeAll(wasFutile: Bool = false) {
        for slot in rows.indices { rows[slot] = nil }
        if wasFutile { wantedStreak = StepAhead.caution }
        isEnqueued = false
    }

    /// Notes whether the step that runs now was foreseen.
    mutating func note(wasForeseen: Bool) {
        streak = wasForeseen ? streak + 1 : 0
        if wasForeseen, isEnqueued { wantedStreak = 0 }
    }

    /// Sets what follows the step that has just run.
    mutating func replace(_ next: some Sequence<(slot: Int, place: Int, row: Row)>, isEnqueued: Bool) {
        for slot in rows.indices { rows[slot] = nil }
        for (slot, place, row) in next { (rows[slot], places[slot]) = (row, place) }
        self.isEnqueued = isEnqueued
    }
}
