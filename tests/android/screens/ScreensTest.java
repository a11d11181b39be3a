package org.edgemrl.demo;

import static org.junit.Assert.assertEquals;
import static org.junit.Assert.assertTrue;

import android.app.Activity;
import android.app.job.JobInfo;
import android.app.job.JobParameters;
import android.app.job.JobScheduler;
import android.content.ComponentName;
import android.content.Intent;
import android.graphics.Bitmap;
import android.graphics.Canvas;
import android.net.ConnectivityManager;
import android.net.NetworkInfo;
import android.system.Os;
import android.view.View;
import android.view.ViewGroup;
import android.widget.Button;
import android.widget.EditText;
import android.widget.TextView;
import java.io.File;
import java.io.FileDescriptor;
import java.io.FileOutputStream;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Deque;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import org.edgemrl.android.SyncJob;
import org.edgemrl.demo.notes.Note;
import org.edgemrl.demo.sync.LinkState;
import org.edgemrl.store.Store;
import org.junit.Before;
import org.junit.Test;
import org.junit.runner.RunWith;
import org.robolectric.Robolectric;
import org.robolectric.RobolectricTestRunner;
import org.robolectric.RuntimeEnvironment;
import org.robolectric.Shadows;
import org.robolectric.android.controller.ActivityController;
import org.robolectric.annotation.Config;
import org.robolectric.annotation.GraphicsMode;
import org.robolectric.annotation.Implementation;
import org.robolectric.annotation.Implements;
import org.robolectric.shadow.api.Shadow;
import org.robolectric.shadows.ShadowJobService;
import org.robolectric.shadows.ShadowNetworkInfo;

/** The real screens, on the real framework of Android 15, drawn by its own code. */
@RunWith(RobolectricTestRunner.class)
@Config(sdk = 35, qualifiers = "w360dp-h640dp-xhdpi", shadows = ScreensTest.Environment.class)
@GraphicsMode(GraphicsMode.Mode.NATIVE)
public class ScreensTest {
    /** What Robolectric has not: an environment that can be set, and folders that can be opened. */
    @Implements(Os.class)
    public static class Environment {
        private static final Map<String, String> VALUES = new HashMap<>();

        @Implementation
        protected static void setenv(String name, String value, boolean overwrite) {
            VALUES.put(name, value);
        }

        @Implementation
        protected static String getenv(String name) {
            return VALUES.get(name);
        }

        @Implementation
        protected static FileDescriptor open(String path, int flags, int mode) {
            return new FileDescriptor();
        }

        @Implementation
        protected static void fsync(FileDescriptor file) {}

        @Implementation
        protected static void close(FileDescriptor file) {}
    }

    private static final String SERVER = System.getProperty("edge.server");
    /** One for each test, each of a tenant of its own. */
    private static final Deque<String> INVITATIONS = new ArrayDeque<>(List.of(System.getProperty("edge.invitations").split(",")));
    private static final File OUT = new File(System.getProperty("edge.screens"));
    private NotesApplication application;

    @Before
    public void notes() throws Exception {
        application = (NotesApplication) RuntimeEnvironment.getApplication();
        network(ConnectivityManager.TYPE_WIFI);
        settle();
        application.getNotebook().put(List.of(
            new Note("a", "Tomato soup\n\nCut the onions. Boil the water and add salt. Serve hot.", 3),
            new Note("b", "Flat in Lisbon\n\nThe landlord wants the deposit before the first of May.", 2),
            new Note("c", "قائمة التسوق\n\nخبز وحليب وبيض.", 1)));
    }

    private void network(int kind) {
        NetworkInfo info = ShadowNetworkInfo.newInstance(NetworkInfo.DetailedState.CONNECTED, kind, 0, true, NetworkInfo.State.CONNECTED);
        Shadows.shadowOf(application.getSystemService(ConnectivityManager.class)).setActiveNetworkInfo(info);
    }

    /** Waits for the thread of work, then for that of the views, a few times. */
    private void settle() throws Exception {
        for (int i = 0; i < 8; i++) {
            CountDownLatch done = new CountDownLatch(1);
            application.getRunner().getBackground().execute(done::countDown);
            done.await();
            Shadows.shadowOf(android.os.Looper.getMainLooper()).idle();
        }
    }

    private <T extends Activity> T open(Class<T> screen, Intent intent) throws Exception {
        ActivityController<T> controller = intent == null ? Robolectric.buildActivity(screen) : Robolectric.buildActivity(screen, intent);
        T activity = controller.setup().get();
        settle();
        return activity;
    }

    private void shoot(Activity activity, String name) throws Exception {
        View view = activity.getWindow().getDecorView();
        Bitmap bitmap = Bitmap.createBitmap(view.getWidth(), view.getHeight(), Bitmap.Config.ARGB_8888);
        view.draw(new Canvas(bitmap));
        OUT.mkdirs();
        try (FileOutputStream file = new FileOutputStream(new File(OUT, name + ".png"))) {
            bitmap.compress(Bitmap.CompressFormat.PNG, 100, file);
        }
    }

    private static List<View> all(View view) {
        List<View> found = new ArrayList<>();
        found.add(view);
        if (view instanceof ViewGroup) {
            for (int i = 0; i < ((ViewGroup) view).getChildCount(); i++) found.addAll(all(((ViewGroup) view).getChildAt(i)));
        }
        return found;
    }

    /** Each text that is shown has room, and each thing to press is large enough and has a name. */
    private void inspect(Activity activity) {
        int least = (int) (48 * activity.getResources().getDisplayMetrics().density);
        for (View view : all(activity.getWindow().getDecorView())) {
            if (!view.isShown()) continue;
            if (view.isClickable() && !(view instanceof ViewGroup)) {
                assertTrue(view + " is small", view.getHeight() >= least - 1);
                boolean named = view.getContentDescription() != null
                    || view instanceof TextView && (((TextView) view).getText().length() > 0 || ((TextView) view).getHint() != null);
                assertTrue(view + " has no name", named);
            }
        }
    }

    private void everyScreen(String look) throws Exception {
        Intent note = new Intent().putExtra("id", "a");
        NotesActivity list = open(NotesActivity.class, null);
        each(list, "list", look);
        ((EditText) list.findViewById(R.id.search)).setText("salt wat");
        settle();
        each(list, "search", look);
        each(open(NoteActivity.class, note), "note", look);
        each(open(ImportActivity.class, null), "import", look);
        SyncActivity sync = open(SyncActivity.class, null);
        each(sync, "join", look);
        join(sync);
        aLetter();
        sync.findViewById(R.id.sync_now).performClick();
        until("a letter is shown", () -> shows(sync, R.id.letters, "too large"));
        each(sync, "sync", look);
        VerifyActivity verify = open(VerifyActivity.class, null);
        for (View view : all(verify.getWindow().getDecorView())) {
            if (view instanceof android.widget.Button && view.isEnabled() && view.getHeight() > 0) view.performClick();
        }
        settle();
        long passed = all(verify.getWindow().getDecorView()).stream()
            .filter(view -> view instanceof TextView && ((TextView) view).getText().toString().startsWith("passed: ")).count();
        assertEquals("files, golden vectors and speed", 3, passed);
        each(verify, "verify", look);
        each(open(SettingsActivity.class, null), "settings", look);
    }

    private void each(Activity activity, String screen, String look) throws Exception {
        inspect(activity);
        shoot(activity, screen + "-" + look);
    }

    /** Waits until the screen shows something, which a server has a part in. */
    private void until(String what, Condition holds) throws Exception {
        long end = System.nanoTime() + TimeUnit.SECONDS.toNanos(60);
        while (!holds.now()) {
            assertTrue(what + ", " + application.getLink().state(), System.nanoTime() < end);
            Thread.sleep(20);
            Shadows.shadowOf(android.os.Looper.getMainLooper()).idle();
        }
    }

    private interface Condition {
        boolean now() throws Exception;
    }

    private static boolean shows(Activity activity, int id, String words) {
        View view = activity.findViewById(id);
        return view.isShown() && ((TextView) view).getText().toString().contains(words);
    }

    private static void type(Activity activity, int id, String words) {
        ((EditText) activity.findViewById(id)).setText(words);
    }

    /** Fills the form in, and waits until everything is exchanged. */
    private void join(SyncActivity sync) throws Exception {
        type(sync, R.id.server, SERVER);
        type(sync, R.id.invitation, INVITATIONS.remove());
        sync.findViewById(R.id.join).performClick();
        until("everything is exchanged", () -> shows(sync, R.id.status, "Everything is exchanged"));
    }

    /** A note that is too large for a server. */
    private void aLetter() {
        application.getNotebook().put(List.of(new Note("large", "Minutes of a very long meeting " + "a".repeat(1 << 20), 4)));
    }

    private JobScheduler jobs() {
        return application.getSystemService(JobScheduler.class);
    }

    @Test
    public void joiningStartsJobsAndLeavingEndsThem() throws Exception {
        assertTrue(jobs().getAllPendingJobs().isEmpty());
        SyncActivity sync = open(SyncActivity.class, null);
        join(sync);
        JobInfo job = jobs().getAllPendingJobs().get(0);
        assertEquals(new ComponentName(application, SyncJob.class), job.getService());
        assertEquals(JobInfo.NETWORK_TYPE_UNMETERED, job.getNetworkType());
        assertTrue(job.isPersisted() && job.isPeriodic() && job.isRequireBatteryNotLow() && !job.isRequireCharging());
        application.getNotebook().put(List.of(new Note("n", "A new note is sent soon", 5)));
        assertEquals(2, jobs().getAllPendingJobs().size());
        application.getLink().leave();
        assertTrue(jobs().getAllPendingJobs().isEmpty());
    }

    @Test
    public void aMeteredNetworkIsWaitedForAndSyncNowIsNot() throws Exception {
        network(ConnectivityManager.TYPE_MOBILE);
        SyncActivity sync = open(SyncActivity.class, null);
        type(sync, R.id.server, SERVER);
        type(sync, R.id.invitation, INVITATIONS.remove());
        sync.findViewById(R.id.join).performClick();
        until("it says why it waits", () -> shows(sync, R.id.status, "a network that costs nothing"));
        sync.findViewById(R.id.sync_now).performClick();
        until("everything is exchanged", () -> shows(sync, R.id.status, "Everything is exchanged"));
    }

    @Test
    public void theJobExchangesAndSaysThatItIsDone() throws Exception {
        join(open(SyncActivity.class, null));
        application.getNotebook().put(List.of(new Note("n", "The job sends this", 5)));
        assertEquals(1, application.getLink().state().getQueued());
        SyncJob job = Robolectric.setupService(SyncJob.class);
        ShadowJobService shadow = Shadow.extract(job);
        assertTrue(job.onStartJob(Shadow.newInstanceOf(JobParameters.class)));
        until("the job is done", shadow::getIsJobFinished);
        assertTrue("it is not asked for again", !shadow.getIsRescheduleNeeded());
        assertEquals(0, application.getLink().state().getQueued());
    }

    @Test
    public void aJobThatIsStoppedEndsAndIsNotFinishedTwice() throws Exception {
        join(open(SyncActivity.class, null));
        application.getNotebook().put(List.of(new Note("n", "This waits", 5)));
        try (java.net.ServerSocket silent = new java.net.ServerSocket(0, 9, java.net.InetAddress.getByName("127.0.0.1"))) {
            try (Store store = Store.Companion.open(application.getNotebook().storeFile(), 10_000)) {
                org.edgemrl.sync.EnrollingKt.move(store, "http://127.0.0.1:" + silent.getLocalPort(), null);
            }
            SyncJob job = Robolectric.setupService(SyncJob.class);
            ShadowJobService shadow = Shadow.extract(job);
            JobParameters parameters = Shadow.newInstanceOf(JobParameters.class);
            assertTrue(job.onStartJob(parameters));
            silent.accept().close();
            assertTrue("it is tried again later", job.onStopJob(parameters));
            until("the exchange ends", () -> application.getLink().state().getRunning() == null);
            assertTrue(!shadow.getIsJobFinished());
        }
        LinkState state = application.getLink().state();
        assertEquals(1, state.getQueued());
    }

    @Test
    public void aScannedInvitationFillsTheFormAndNothingElseDoes() throws Exception {
        SyncActivity sync = open(SyncActivity.class, null);
        sync.onActivityResult(1, Activity.RESULT_OK, new Intent().putExtra("SCAN_RESULT", "https://example.org abc"));
        assertEquals("https://example.org", ((EditText) sync.findViewById(R.id.server)).getText().toString());
        assertEquals("abc", ((EditText) sync.findViewById(R.id.invitation)).getText().toString());
        sync.onActivityResult(1, Activity.RESULT_OK, new Intent().putExtra("SCAN_RESULT", "a b c"));
        assertEquals("abc", ((EditText) sync.findViewById(R.id.invitation)).getText().toString());
        sync.onActivityResult(1, Activity.RESULT_CANCELED, null);
        Shadows.shadowOf(application).checkActivities(true); // as on a phone without a scanner
        for (View view : all(sync.getWindow().getDecorView())) {
            if (view instanceof Button && ((Button) view).getText().toString().startsWith("Scan")) view.performClick();
        }
        assertTrue(all(sync.getWindow().getDecorView()).stream()
            .anyMatch(view -> view.isShown() && view instanceof TextView && ((TextView) view).getText().toString().contains("no app that scans")));
    }

    @Test
    public void aRotationKeepsTheForm() throws Exception {
        ActivityController<SyncActivity> controller = Robolectric.buildActivity(SyncActivity.class).setup();
        settle();
        type(controller.get(), R.id.server, "https://example.org");
        controller.recreate();
        settle();
        assertEquals("https://example.org", ((EditText) controller.get().findViewById(R.id.server)).getText().toString());
    }

    @Test
    public void light() throws Exception {
        everyScreen("light");
    }

    @Test
    public void dark() throws Exception {
        RuntimeEnvironment.setQualifiers("+night");
        everyScreen("dark");
    }

    @Test
    public void largeFonts() throws Exception {
        RuntimeEnvironment.setFontScale(2f);
        everyScreen("large");
    }

    @Test
    public void rightToLeft() throws Exception {
        RuntimeEnvironment.setQualifiers("+ar-ldrtl");
        everyScreen("rtl");
    }

    @Test
    public void sharedTextBecomesANote() throws Exception {
        Intent shared = new Intent(Intent.ACTION_SEND).setType("text/plain").putExtra(Intent.EXTRA_TEXT, "Shared words");
        ActivityController<NoteActivity> controller = Robolectric.buildActivity(NoteActivity.class, shared).setup();
        settle();
        assertEquals("Shared words", ((EditText) controller.get().findViewById(R.id.text)).getText().toString());
        controller.pause();
        settle();
        assertTrue(application.getNotebook().all().stream().anyMatch(n -> n.getText().equals("Shared words")));
    }

    @Test
    public void aRotationKeepsWhatIsBeingWritten() throws Exception {
        ActivityController<NoteActivity> controller = Robolectric.buildActivity(NoteActivity.class, new Intent().putExtra("id", "a")).setup();
        settle();
        ((EditText) controller.get().findViewById(R.id.text)).setText("Soup, changed");
        controller.recreate();
        settle();
        assertEquals("Soup, changed", ((EditText) controller.get().findViewById(R.id.text)).getText().toString());
        assertEquals("Soup, changed", application.getNotebook().get("a").getText());
    }

    @Test
    public void telemetryIsOff() {
        assertEquals("1", android.system.Os.getenv("ORT_DISABLE_TELEMETRY"));
    }
}
