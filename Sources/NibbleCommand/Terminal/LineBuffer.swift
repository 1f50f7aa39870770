/// A line of text that is being edited, and the history of lines.
struct LineBuffer {
    private(set) var characters: [Character] = []
    /// Characters before the cursor.
    private(set) var cursor = 0
    private var history: [String] = []
    /// The index in ``history`` of the line that is shown; the history's end stands for the new line.
    private var place = 0
    /// The new line, while one from the history is shown.
    private var draft: [Character] = []

    var text: String { String(characters) }

    /// Begins a new line.
    mutating func begin() {
        set("")
        place = history.count
        draft = []
    }

    /// Remembers the line, unless it is empty or the same as the last.
    mutating func remember() {
        if !characters.isEmpty, history.last != text { history.append(text) }
    }

    mutating func apply(_ edit: Edit) {
        switch edit {
        case .insert(let character):
            characters.insert(character, at: cursor)
            cursor += 1
        case .deleteBackward: delete(max(cursor - 1, 0)..<cursor)
        case .deleteForward: delete(cursor..<min(cursor + 1, characters.count))
        case .deleteToEnd: delete(cursor..<characters.count)
        case .deleteToStart: delete(0..<cursor)
        case .deleteWord: delete(wordStart..<cursor)
        case .left: cursor = max(cursor - 1, 0)
        case .right: cursor = min(cursor + 1, characters.count)
        case .wordLeft: cursor = wordStart
        case .wordRight: cursor = wordEnd
        case .start: cursor = 0
        case .end: cursor = characters.count
        case .previousLine: show(place - 1)
        case .nextLine: show(place + 1)
        }
    }

    enum Edit: Equatable {
        case insert(Character)
        case deleteBackward, deleteForward, deleteToEnd, deleteToStart, deleteWord
        case left, right, wordLeft, wordRight, start, end
        case previousLine, nextLine
    }

    private mutating func delete(_ range: Range<Int>) {
        characters.removeSubrange(range)
        cursor = range.lowerBound
    }

    private mutating func set(_ text: String) {
        characters = Array(text)
        cursor = characters.count
    }

    private mutating func show(_ index: Int) {
        guard (0...history.count).contains(index), index != place else { return }
        if place == history.count { draft = characters }
        place = index
        set(index == history.count ? String(draft) : history[index])
    }

    private var wordStart: Int {
        var index = cursor
        while index > 0, characters[index - 1].isWhitespace { index -= 1 }
        while index > 0, !characters[index - 1].isWhitespace { index -= 1 }
        return index
    }

    private var wordEnd: Int {
        var index = cursor
        while index < characters.count, characters[index].isWhitespace { index += 1 }
        while index < characters.count, !characters[index].isWhitespace { index += 1 }
        return index
    }
}
