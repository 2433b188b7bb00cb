/** The pages of problems in Chromium. */
import { describe, expect, test } from 'vitest'
import { findAccessibilityFaults, openPage } from '../support/browser.ts'
import { chromiumPath } from '../support/chromium.ts'
import { startService } from '../support/service.ts'

describe.runIf(chromiumPath)('the pages of problems in a browser', () => {
  test.each(['light', 'dark'] as const)('are accessible with %s colours', async (colorScheme) => {
    const { port } = await startService()
    const { page, complaints } = await openPage(port, '/problems', { colorScheme })
    expect(await findAccessibilityFaults(page)).toEqual([])
    await page.getByRole('link', { name: 'overloaded' }).click()
    await page.getByRole('heading', { name: 'The service is overloaded' }).waitFor()
    expect(await findAccessibilityFaults(page)).toEqual([])
    await page.getByRole('link', { name: 'All problems' }).click()
    await page.getByRole('heading', { name: 'Problems' }).waitFor()
    expect(complaints).toEqual([])
  })
})
