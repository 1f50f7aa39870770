/// How a schema is enforced.
package struct SchemaOptions: Sendable, Hashable {
    /// Keywords that cannot be enforced exactly are ignored; otherwise they are refused.
    package var isLenient = false
    /// No white space at all; otherwise between elements at most one blank, or a line break and up to 24 blanks.
    package var isCompact = false
    /// Members of objects come in any order; otherwise in the schema's.
    package var hasAnyOrder = false

    package init() {}
}
