/// A token that is found in the text before the model sees it.
public struct AddedToken: Sendable, Equatable {
    public var content: String
    public var id: Int32
    /// Only where neither neighbour is a word character.
    public var isSingleWord = false
    /// Takes the white space before it along.
    public var stripsLeft = false
    /// Takes the white space after it along.
    public var stripsRight = false
    /// Found in the normalized text, not in the text as it was given.
    public var isNormalized = false
    /// Left out by decoding with `skipSpecialTokens`.
    public var isSpecial = false

    public init(content: String, id: Int32, isSpecial: Bool = false) {
        self.content = content
        self.id = id
        self.isSpecial = isSpecial
        isNormalized = !isSpecial
    }
}

extension AddedToken {
    /// - Parameter id: the id where the object has none of its own.
    init(_ field: JSONField, id: Int32? = nil) throws(TokenizerError) {
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
