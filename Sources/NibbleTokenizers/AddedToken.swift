import NibbleCore

/// A token that is split out of the text before the model encodes the rest.
package struct AddedToken: Sendable, Equatable {
    package var content: String
    package var id: Int32
    /// Matches only if neither neighbour is a word character.
    package var isSingleWord = false
    /// Includes the white space before it.
    package var stripsLeft = false
    /// Includes the white space after it.
    package var stripsRight = false
    /// Matched in the normalized text instead of the raw text.
    package var isNormalized = false
    /// Decoding with `skipSpecialTokens` leaves it out.
    package var isSpecial = false

    package init(content: String, id: Int32, isSpecial: Bool = false) {
        self.content = content
        self.id = id
        self.isSpecial = isSpecial
        isNormalized = !isSpecial
    }
}

extension AddedToken {
    /// - Parameter id: the id where the object has none of its own.
    init(_ field: JSONField, id: Int32? = nil) throws {
        let content = try field.required("content").string()
        let isSpecial = try field.flag("special", default: false)
        if let id {
            self.init(content: content, id: id, isSpecial: isSpecial)
        } else {
            self.init(content: content, id: try field.required("id").tokenID(), isSpecial: isSpecial)
        }
        isSingleWord = try field.flag("single_word", default: false)
        stripsLeft = try field.flag("lstrip", default: false)
        stripsRight = try field.flag("rstrip", default: false)
        isNormalized = try field.flag("normalized", default: !isSpecial)
    }
}
