import ArgumentParser
import Foundation
import Nibble
import NibbleCore

struct DoctorCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "doctor",
        abstract: "Show the devices of this machine, and check that they compute correctly.",
        discussion: "With --selftest every operation of every device is compared with its plain form.")

    @Flag(help: "Run every case of every operation and compare.")
    var selftest = false

    @Option(help: "With --selftest: only cases whose names begin with this, as \"linear int8\" (repeatable).")
    var only: [String] = []

    @Flag(help: "Print JSON.")
    var json = false

    @Option(help: "CPU threads (default: all cores).")
    var threads: Int?

    func validate() throws {
        if let threads, !(1...LoadOptionsGroup.maximumThreads ~= threads) {
            throw ValidationError("--threads must be from 1 to \(LoadOptionsGroup.maximumThreads), found \(threads)")
        }
        guard only.isEmpty || selftest else { throw ValidationError("--only chooses cases of --selftest, which is missing") }
        #if !SelfTest
        if selftest {
            throw ValidationError("this nibble is built without the self-test; build it without --disable-default-traits")
        }
        #endif
    }

    func run() async throws {
        let devices = MachineBackends.backends(threads: threads)
        let reports = try reports(on: devices)
        if json { printJSON(devices, reports) } else { printText(devices, reports) }
        if reports.contains(where: { !$0.passes }) { throw ExitCode.failure }
    }

    private func reports(on devices: [any Backend]) throws -> [SelfTestReport] {
        #if SelfTest
        guard selftest else { return [] }
        let cases = try SelfTestReport.cases(only)
        return devices.map { SelfTestReport(cases, on: $0) }
        #else
        []
        #endif
    }

    private func printText(_ devices: [any Backend], _ reports: [SelfTestReport]) {
        for backend in devices { Console.output("\(backend.device): \(backend.summary)") }
        for finding in MachineBackends.findings { Console.output(finding) }
        let hub = HubConfiguration.standard
        Console.output("models from \(hub.endpoint) are kept in \(hub.cacheFolder.path)" + (hub.isOffline ? "; offline" : ""))
        for line in reports.flatMap(\.lines) { Console.output(line) }
    }

    private func printJSON(_ devices: [any Backend], _ reports: [SelfTestReport]) {
        let described = devices.map { backend in
            JSONValue.object(
                JSONObject([("device", .string(backend.device.description)), ("summary", .string(backend.summary))]))
        }
        let findings = MachineBackends.findings.map(JSONValue.string)
        let hub = HubConfiguration.standard
        var members: [(String, JSONValue)] = [
            ("devices", .array(described)), ("libraries", .array(findings)),
            (
                "hub",
                .object(
                    JSONObject([
                        ("endpoint", .string(hub.endpoint)), ("cache", .string(hub.cacheFolder.path)),
                        ("offline", .bool(hub.isOffline)),
                    ]))
            ),
        ]
        if selftest { members.append(("selftest", .array(reports.map(\.json)))) }
        Console.output(JSONValue.object(JSONObject(members)).encoded(.pretty))
    }
}
