import NibbleCore

extension PostProcessor {
    init(_ field: JSONField) throws {
        let type = try field.required("type")
        switch try type.string() {
        case "Sequence":
            var parts: [PostProcessor] = []
            for element in try field.required("processors").elements() { parts.append(try PostProcessor(element)) }
            self = .sequence(parts)
        case "ByteLevel":
            self = .byteLevel(
                addsPrefixSpace: try field.flag("add_prefix_space", default: true),
                trimsOffsets: try field.flag("trim_offsets", default: true))
        case "TemplateProcessing": self = .template(try Template(field))
        case "BertProcessing": self = .template(try Template(around: field, separators: 1))
        case "RobertaProcessing":
            let template = PostProcessor.template(try Template(around: field, separators: 2))
            guard try field.flag("trim_offsets", default: true) else {
                self = template
                return
            }
            let addsPrefixSpace = try field.flag("add_prefix_space", default: true)
            self = .sequence([.byteLevel(addsPrefixSpace: addsPrefixSpace, trimsOffsets: true), template])
        case let other: throw type.unsupported(other)
        }
    }
}

extension PostProcessor.Template {
    fileprivate init(_ field: JSONField) throws {
        specials = [:]
        for (name, special) in try field.child("special_tokens")?.members() ?? [] {
            let ids = try special.required("ids").elements()
            let tokens = try special.required("tokens").elements()
            guard ids.count == tokens.count else { throw special.unexpected("as many ids as tokens") }
            var pairs: [(id: Int32, token: String)] = []
            for (id, token) in zip(ids, tokens) { pairs.append((try id.tokenID(), try token.string())) }
            specials[name] = pairs
        }
        single = []
        pair = []
        for element in try field.required("single").elements() { single.append(try part(element)) }
        for element in try field.child("pair")?.elements() ?? [] { pair.append(try part(element)) }
    }

    private func part(_ field: JSONField) throws -> Element {
        if let special = field.child("SpecialToken") {
            let name = try special.text("id")
            guard specials[name] != nil else { throw try special.required("id").unexpected("a name in special_tokens") }
            return .special(name: name, typeID: try typeID(special))
        }
        let sequence = try field.required("Sequence")
        let name = try sequence.required("id")
        switch try name.string() {
        case "A": return .sequence(isSecond: false, typeID: try typeID(sequence))
        case "B": return .sequence(isSecond: true, typeID: try typeID(sequence))
        default: throw name.unexpected("'A' or 'B'")
        }
    }

    private func typeID(_ field: JSONField) throws -> Int32 {
        Int32(try field.child("type_id")?.integer(in: 0...Int(Int32.max)) ?? 0)
    }

    /// `cls A sep` and `cls A sep… B sep`.
    fileprivate init(around field: JSONField, separators: Int) throws {
        specials = [:]
        for name in ["cls", "sep"] {
            let entry = try field.required(name).elements()
            guard entry.count == 2 else { throw try field.required(name).unexpected("a token and its id") }
            specials[name] = [(try entry[1].tokenID(), try entry[0].string())]
        }
        let secondType: Int32 = separators == 1 ? 1 : 0
        let separator = Element.special(name: "sep", typeID: 0)
        single = [.special(name: "cls", typeID: 0), .sequence(isSecond: false, typeID: 0), separator]
        pair = single
        if separators == 2 { pair.append(separator) }
        pair += [.sequence(isSecond: true, typeID: secondType), .special(name: "sep", typeID: secondType)]
    }
}
