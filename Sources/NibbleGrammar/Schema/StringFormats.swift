/// The formats of strings that are enforced, each as regular expressions that the whole text must match.
enum StringFormats {
    static let patterns: [String: [String]] = [
        "date": [date],
        "time": [time],
        "date-time": ["(?:\(date))[tT](?:\(time))"],
        "duration": [duration],
        "email": ["(?:\(atom))(?:\\.(?:\(atom)))*@(?:\(label))(?:\\.(?:\(label)))*"],
        "hostname": ["(?:\(label))(?:\\.(?:\(label)))*", ".{1,253}"],
        "ipv4": [ipv4],
        "ipv6": [ipv6],
        "uuid": ["[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"],
        "uri": [uri],
        "uri-reference": [uriReference],
        "json-pointer": ["(?:/(?:[^~/]|~[01])*)*"],
        "relative-json-pointer": ["(?:0|[1-9][0-9]*)(?:#|(?:/(?:[^~/]|~[01])*)*)"],
        // What is said of a text's use, not of its form.
        "password": [], "binary": [], "byte": [],
    ]

    /// Whether a format of the drafts' own is not enforced. Any other unknown name is an annotation, as the drafts say.
    static func isUnsupported(_ name: String) -> Bool { unsupported.contains(name) }

    private static let unsupported: Set<String> = [
        "regex", "iri", "iri-reference", "idn-email", "idn-hostname", "uri-template", "color", "ip-address", "host-name",
    ]

    private static let date =
        "[0-9]{4}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)"
        + "|02-(?:0[1-9]|1[0-9]|2[0-8]))"
        + "|(?:[0-9]{2}(?:0[48]|[2468][048]|[13579][26])|(?:[02468][048]|[13579][26])00)-02-29"
    private static let time =
        "(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\\.[0-9]+)?(?:[zZ]|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])"
    private static let duration: String = {
        let time = "T(?:[0-9]+H(?:[0-9]+M(?:[0-9]+S)?)?|[0-9]+M(?:[0-9]+S)?|[0-9]+S)"
        let day = "(?:[0-9]+Y(?:[0-9]+M(?:[0-9]+D)?)?|[0-9]+M(?:[0-9]+D)?|[0-9]+D)"
        return "P(?:\(day)(?:\(time))?|\(time)|[0-9]+W)"
    }()
    private static let atom = "[a-zA-Z0-9!#$%&'*+/=?^_`{|}~-]+"
    private static let label = "[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?"
    private static let octet = "(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
    private static let ipv4 = "\(octet)(?:\\.\(octet)){3}"
    private static let ipv6: String = {
        let group = "[0-9a-fA-F]{1,4}"
        let last = "(?:\(group):\(group)|\(ipv4))"
        var forms = ["(?:\(group):){6}\(last)", "::(?:\(group):){5}\(last)"]
        for before in 1...5 {
            // `before` groups at most, the gap, and what is left of eight behind it.
            let head = "(?:(?:\(group):){0,\(before - 1)}\(group))?"
            forms.append("\(head)::(?:\(group):){\(5 - before)}\(last)")
        }
        forms.append("(?:(?:\(group):){0,5}\(group))?::\(group)")
        forms.append("(?:(?:\(group):){0,6}\(group))?::")
        return forms.joined(separator: "|")
    }()
    private static let uri = "[A-Za-z][A-Za-z0-9+.-]*:(?:\(path(first: segment)))\(queryAndFragment)"
    /// A URI, or a reference relative to one: its first segment holds no colon.
    private static let uriReference =
        "\(uri)|(?:\(path(first: "(?:[A-Za-z0-9._~!$&'()*+,;=@-]|%[0-9a-fA-F]{2})")))\(queryAndFragment)"
    private static let segment = "(?:[A-Za-z0-9._~!$&'()*+,;=:@-]|%[0-9a-fA-F]{2})"
    private static let queryAndFragment = "(?:\\?(?:\(segment)|[/?])*)?(?:#(?:\(segment)|[/?])*)?"

    private static func path(first: String) -> String {
        let escape = "%[0-9a-fA-F]{2}"
        let plain = "[A-Za-z0-9._~!$&'()*+,;=-]"
        let authority =
            "(?:(?:\(plain)|:|\(escape))*@)?(?:\\[(?:\(ipv6))\\]|(?:\(plain)|\(escape))*)(?::[0-9]*)?"
        return "//\(authority)(?:/\(segment)*)*|/(?:\(segment)+(?:/\(segment)*)*)?|\(first)+(?:/\(segment)*)*|"
    }
}
