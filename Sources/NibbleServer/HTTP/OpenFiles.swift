import Foundation

/// The descriptors that this process may have.
package enum OpenFiles {
    /// For files of models and whatever else is open.
    private static let reserve = 64

    /// Raises the process's own limit as far as it is allowed to.
    /// - Returns: how many of `connections` there is room for, at least one.
    package static func room(for connections: Int) -> Int {
        var limit = rlimit()
        #if canImport(Glibc)
        let resource = __rlimit_resource_t(UInt32(RLIMIT_NOFILE.rawValue))
        #else
        let resource = RLIMIT_NOFILE
        #endif
        guard getrlimit(resource, &limit) == 0 else { return connections }
        let wanted = rlim_t(connections) + rlim_t(reserve)
        if limit.rlim_cur < wanted {
            limit.rlim_cur = min(wanted, limit.rlim_max)
            setrlimit(resource, &limit)
            getrlimit(resource, &limit)
        }
        return limit.rlim_cur >= wanted ? connections : max(Int(limit.rlim_cur) - reserve, 1)
    }
}
