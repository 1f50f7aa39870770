// The commit that a build was made from.
#pragma once

/// The commit's first digits, followed by + if files had changed since; empty where the manifest could not tell.
const char *nibble_commit(void);
